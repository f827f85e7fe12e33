"""The papers that recipes and merges come from, as a model card cites them."""

from __future__ import annotations

CITATIONS = {
    "arXiv:1604.00772": "Hansen, The CMA evolution strategy: a tutorial, 2016, https://arxiv.org/abs/1604.00772",
    "arXiv:2401.17790": ("Menes and Risser-Maroix, RADIN: souping on a budget, 2024, https://arxiv.org/abs/2401.17790"),
    "arXiv:2203.05482": (
        "Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy without"
        " increasing inference time, ICML 2022, https://arxiv.org/abs/2203.05482"
    ),
    "arXiv:2109.01903": (
        "Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, https://arxiv.org/abs/2109.01903"
    ),
    "arXiv:2212.04089": (
        "Ilharco et al., Editing models with task arithmetic, ICLR 2023, https://arxiv.org/abs/2212.04089"
    ),
    "arXiv:2306.01708": (
        "Yadav et al., TIES-Merging: resolving interference when merging models, NeurIPS 2023,"
        " https://arxiv.org/abs/2306.01708"
    ),
    "arXiv:2311.03099": (
        "Yu et al., Language models are super Mario: absorbing abilities from homologous models as a free"
        " lunch, ICML 2024, https://arxiv.org/abs/2311.03099"
    ),
    "arXiv:2312.06795": (
        "Davari and Belilovsky, Model breadcrumbs: scaling multi-task model merging with sparse masks, ECCV 2024,"
        " https://arxiv.org/abs/2312.06795"
    ),
    "arXiv:2403.19522": (
        "Jang, Yun and Han, Model Stock: all we need is just a few fine-tuned models, ECCV 2024,"
        " https://arxiv.org/abs/2403.19522"
    ),
    "arXiv:2111.09832": (
        "Matena and Raffel, Merging models with Fisher-weighted averaging, NeurIPS 2022,"
        " https://arxiv.org/abs/2111.09832"
    ),
    "arXiv:2212.09849": (
        "Jin, Ren, Preotiuc-Pietro and Cheng, Dataless knowledge fusion by merging weights of language models,"
        " ICLR 2023, https://arxiv.org/abs/2212.09849"
    ),
    "arXiv:2106.05237": (
        "Beyer et al., Knowledge distillation: a good teacher is patient and consistent, CVPR 2022,"
        " https://arxiv.org/abs/2106.05237"
    ),
    "arXiv:2209.14981": (
        "Kaddour, Stop wasting my time! Saving days of ImageNet and BERT training with latest weight averaging, 2022,"
        " https://arxiv.org/abs/2209.14981"
    ),
    "arXiv:2301.10092": (
        "Dansereau, Sobral, Bhogal and Zalai, Model soups to increase inference without increasing compute time, 2023,"
        " https://arxiv.org/abs/2301.10092"
    ),
}
