"""Write the checkpoints in this folder with the version of transformers that runs it; the suite only reads them.

In an environment of its own with torch, pillow and `transformers==4.30.2`, then 4.44.2, then 4.57.1:

    python tests/data/versions/make.py

Each model has random weights. A later version saves the image processor that the first one made, as a fine-tuning does.
"""

import sys
import types
import zlib
from pathlib import Path

HERE = Path(__file__).parent
# The Fast classes of 4.57 need torchvision's Python code, which imports without its compiled operators.
sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification  # noqa: E402

NAMES = ("apple", "green pear", "quince", "plum", "sour_cherry", "fig")
SIDE = 16
VIT = {
    "image_size": SIDE,
    "patch_size": 4,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
}
WINDOWS = {"image_size": SIDE, "patch_size": 4, "embed_dim": 4, "depths": [1], "num_heads": [1], "window_size": 2}
PYRAMID = {"depths": [1, 1], "hidden_sizes": [4, 8]}
CONFIGS = {
    "beit": {**VIT, "use_relative_position_bias": True},
    "clip": {"vision_config": VIT},
    "convnext": {**PYRAMID, "num_stages": 2, "patch_size": 4},
    "deit": VIT,
    "dinov2": {key: value for key, value in VIT.items() if key != "intermediate_size"} | {"mlp_ratio": 2},
    "efficientnet": {
        "image_size": SIDE,
        "width_coefficient": 0.125,
        "depth_coefficient": 1.0,
        "hidden_dim": 160,
        "kernel_sizes": [3],
        "in_channels": [32],
        "out_channels": [32],
        "strides": [1],
        "num_block_repeats": [1],
        "expand_ratios": [1],
    },
    "levit": {
        "image_size": 64,
        "hidden_sizes": [8, 8, 8],
        "num_attention_heads": [1, 1, 1],
        "depths": [1, 1, 1],
        "key_dim": [4, 4, 4],
        "mlp_ratio": [1, 1, 1],
        "attention_ratio": [1, 1, 1],
    },
    "poolformer": {
        "num_encoder_blocks": 2,
        "depths": [1, 1],
        "hidden_sizes": [4, 8],
        "patch_sizes": [7, 3],
        "strides": [4, 2],
        "padding": [2, 1],
        "mlp_ratio": 2.0,
    },
    "regnet": {**PYRAMID, "embedding_size": 4, "groups_width": 4},
    "resnet": {**PYRAMID, "embedding_size": 4, "layer_type": "basic"},
    "siglip": {"vision_config": VIT},
    "swinv2": WINDOWS,
    "vit": VIT,
}
PROCESSORS = {
    "beit": ("Beit", {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False}),
    "clip": ("CLIP", {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}),
    "convnext": ("ConvNext", {"size": {"shortest_edge": SIDE}}),
    "deit": ("DeiT", {"size": {"height": 20, "width": 20}, "crop_size": {"height": SIDE, "width": SIDE}}),
    "dinov2": ("Bit", {"size": {"shortest_edge": 20}, "crop_size": {"height": SIDE, "width": SIDE}}),
    "efficientnet": ("EfficientNet", {"size": {"height": SIDE, "width": SIDE}}),
    "levit": ("Levit", {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}),
    "poolformer": ("PoolFormer", {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}),
    "siglip": ("Siglip", {"size": {"height": SIDE, "width": SIDE}}),
}
# Nearly every version writes its own defaults; two of each kind show it.
MADE_BY = {
    "4.30.2": ("beit", "convnext", "deit", "efficientnet", "levit", "poolformer", "resnet", "swinv2", "vit"),
    "4.44.2": ("clip", "dinov2", "regnet", "siglip", "vit"),
    "4.57.1": tuple(CONFIGS),
}
ARCHITECTURES = {"deit": "DeiTForImageClassification", "levit": "LevitForImageClassification"}


def make(kind: str, folder: Path) -> None:
    """One checkpoint of a model type in a folder of the version's."""
    torch.manual_seed(zlib.crc32(str(folder.relative_to(HERE)).encode()))
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    # Such stages stood in every BEiT before 4.31, which has twelve layers by default; here it has one.
    stages = {"out_indices": [0, 1]} if kind == "beit" and transformers.__version__ < "4.31" else {}
    config = AutoConfig.for_model(kind, **CONFIGS[kind], **labels, **stages)
    if kind in ARCHITECTURES:
        config.architectures = [ARCHITECTURES[kind]]
    model = AutoModelForImageClassification.from_config(config)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    model.save_pretrained(folder, safe_serialization=True)
    earlier = sorted(path.parent for path in HERE.glob(f"*/{kind}/preprocessor_config.json") if path.parent != folder)
    if earlier:
        fast = {"use_fast": True} if transformers.__version__ > "4.50" else {}
        AutoImageProcessor.from_pretrained(earlier[0], **fast).save_pretrained(folder)
        return
    name, values = PROCESSORS.get(kind, ("ViT", {"size": {"height": SIDE, "width": SIDE}}))
    getattr(transformers, f"{name}ImageProcessor")(**values).save_pretrained(folder)


version = transformers.__version__
for name in MADE_BY[version]:
    make(name, HERE / version / name)
