"""Every image-classification architecture of transformers, small: what its config says and how large its images are.

Only what makes a model small, or of a kind that the defaults are not, stands here.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

PYRAMID = {"depths": [1, 1], "hidden_sizes": [8, 16]}
"""Two stages of one block."""

VIT = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
DINO = {key: value for key, value in VIT.items() if key != "intermediate_size"} | {"mlp_ratio": 2}
WINDOWS = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4}
STAGES = {
    "image_size": 32,
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "hidden_sizes": [8, 16],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
}
PERCEIVER = {"num_latents": 4, "d_latents": 16, "image_size": 16, "num_self_attends_per_block": 1} | {
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "beit": VIT | {"use_relative_position_bias": True, "use_shared_relative_position_bias": True},
    "bit": PYRAMID | {"embedding_size": 8, "num_groups": 2},
    "clip": {"vision_config": VIT},
    "convnext": PYRAMID | {"num_stages": 2, "patch_size": 2},
    "convnextv2": PYRAMID | {"num_stages": 2, "patch_size": 2},
    "cvt": {"embed_dim": [8, 8, 16], "num_heads": [1, 1, 2], "depth": [1, 2, 3]},
    "data2vec-vision": VIT | {"use_relative_position_bias": True, "out_indices": [0, 1, 1, 1]},
    "deit": VIT,
    "dinat": {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "kernel_size": 3, "dilations": [[1], [1]]},
    "dinov2": DINO,
    "dinov2_with_registers": DINO | {"num_register_tokens": 2},
    "donut-swin": WINDOWS,
    "efficientnet": {
        "image_size": 16,
        "width_coefficient": 0.125,
        "depth_coefficient": 1.0,
        "hidden_dim": 160,
        "kernel_sizes": [3, 3],
        "in_channels": [32, 64],
        "out_channels": [64, 128],
        "strides": [1, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 4],
    },
    "focalnet": PYRAMID | {"image_size": 32, "embed_dim": 8, "focal_levels": [1, 1], "focal_windows": [3, 3]},
    "hgnet_v2": {
        "depths": [1, 1],
        "hidden_sizes": [16, 24],
        "embedding_size": 8,
        "stem_channels": [3, 4, 8],
        "stage_in_channels": [8, 16],
        "stage_mid_channels": [4, 8],
        "stage_out_channels": [16, 24],
        "stage_num_blocks": [1, 1],
        "stage_downsample": [False, True],
        "stage_downsample_strides": [2, 2],
        "stage_light_block": [False, True],
        "stage_kernel_size": [3, 5],
        "stage_numb_of_layers": [2, 2],
    },
    "hiera": {"embed_dim": 8, "image_size": [32, 32], "depths": [1, 1, 1], "num_heads": [1, 2, 2]}
    | {"num_query_pool": 1, "masked_unit_size": [4, 4], "masked_unit_attention": [True, False, False]},
    "ijepa": VIT,
    "imagegpt": {"image_size": 8, "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 9, "n_positions": 64},
    "levit": {
        "image_size": 32,
        "hidden_sizes": [16, 16, 24],
        "num_attention_heads": [1, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [4, 4, 4],
        "down_ops": [["Subsample", 4, 4, 2, 2, 2], ["Subsample", 4, 4, 2, 2, 2]],
    },
    "metaclip_2": {"vision_config": VIT},
    "mobilenet_v1": {"depth_multiplier": 0.05},
    "mobilenet_v2": {"depth_multiplier": 0.05, "finegrained_output": False},
    "mobilevit": {
        "hidden_sizes": [8, 8, 8],
        "neck_hidden_sizes": [4, 8, 8, 8, 8, 8, 16],
        "num_attention_heads": 2,
    },
    "mobilevitv2": {"n_attn_blocks": [1, 1, 1], "base_attn_unit_dims": [8, 8, 8], "width_multiplier": 0.25},
    "perceiver": PERCEIVER,
    "poolformer": {
        "num_encoder_blocks": 2,
        "depths": [1, 1],
        "hidden_sizes": [8, 16],
        "patch_sizes": [7, 3],
        "strides": [4, 2],
        "padding": [2, 1],
    },
    "pp_lcnet": {
        "block_configs": [[[3, 8, 8, side, side == 2]] for side in (1, 2, 2, 1, 1)],
        "stem_channels": 8,
        "class_expand": 16,
    },
    "pvt": STAGES | {"patch_sizes": [4, 2], "sequence_reduction_ratios": [2, 1], "mlp_ratios": [2, 2]},
    "pvt_v2": STAGES | {"sr_ratios": [2, 1], "mlp_ratios": [2, 2]},
    "regnet": PYRAMID | {"embedding_size": 8, "groups_width": 4},
    "resnet": PYRAMID | {"embedding_size": 8},
    "segformer": STAGES | {"sr_ratios": [2, 1], "mlp_ratios": [2, 2], "decoder_hidden_size": 8},
    "shieldgemma2": {},
    "siglip": {"vision_config": VIT},
    "siglip2": {"vision_config": {k: v for k, v in VIT.items() if k != "image_size"} | {"num_patches": 4}},
    "swiftformer": {"depths": [1, 1, 1, 1], "embed_dims": [8, 8, 8, 8], "mlp_ratio": 2},
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "textnet": {
        "stem_out_channels": 8,
        "hidden_sizes": [8, 8, 8, 8, 8],
        "conv_layer_kernel_sizes": [[[3, 3]], [[1, 3]], [[3, 1]], [[3, 3]]],
        "conv_layer_strides": [[1], [2], [2], [1]],
    },
    "timm_wrapper": {"architecture": "resnet18", "model_args": {"channels": (8, 8, 8, 8), "stem_width": 8}},
    "vit": VIT,
    "vit_msn": VIT,
}
SIDES = {"mobilevitv2": 64, "swiftformer": 64}
"""Images are 32 pixels wide where neither the config nor this says otherwise."""

EXCEPTIONS = {
    "dinat": "needs the package natten, which has to be compiled for the machine",
    "shieldgemma2": "answers yes or no to a prompt about an image and has no head with a row per class",
}
"""Model types that no soup can be made of here, and why; the reason stands in `.github/docs/checkpoints.md` too."""

REQUIRED = {"dinat": "natten", "timm_wrapper": "timm"}
"""Packages that transformers asks for to build a model of a type."""


SERVED = sorted(
    kind
    for kind in CONFIGS
    if kind not in EXCEPTIONS and (kind not in REQUIRED or find_spec(REQUIRED[kind]) is not None)
)
"""Model types that a soup can be made of in this environment."""


def side(kind: str) -> int:
    """Height and width in pixels of the images of a model type's small model."""
    config = CONFIGS[kind]
    found = config.get("image_size") or config.get("vision_config", {}).get("image_size") or SIDES.get(kind, 32)
    return int(found if isinstance(found, int) else found[0])
