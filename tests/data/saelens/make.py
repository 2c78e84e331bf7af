"""Written by SAELens itself: `pip install sae-lens`, then run this file.

Tiny autoencoders of each architecture, and what SAELens gives for an input.
"""

from pathlib import Path

import numpy as np
import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAE,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKSAE,
    TopKSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)

HERE = Path(__file__).parent
SIZES = {"d_in": 5, "d_sae": 9}
MADE = {
    "standard": StandardTrainingSAE(StandardTrainingSAEConfig(**SIZES)),
    "topk": TopKTrainingSAE(TopKTrainingSAEConfig(**SIZES, k=3)),
    "topk_rescaled": TopKSAE(
        TopKSAEConfig(**SIZES, k=3, rescale_acts_by_decoder_norm=True)
    ),
    "topk_free": TopKSAE(TopKSAEConfig(**SIZES, k=3, apply_b_dec_to_input=False)),
    "jumprelu": JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**SIZES)),
    "batchtopk": BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**SIZES, k=2.5)),
    "gated": GatedTrainingSAE(GatedTrainingSAEConfig(**SIZES)),
}

if __name__ == "__main__":
    torch.manual_seed(0)
    x = torch.randn(20, 5)
    for name, sae in MADE.items():
        with torch.no_grad():
            for parameter in sae.parameters():
                parameter.copy_(0.5 * torch.randn_like(parameter))
            if name == "batchtopk":
                sae.topk_threshold.fill_(0.4)
            if name == "jumprelu":
                sae.threshold.abs_()
        getattr(sae, "save_inference_model", sae.save_model)(HERE / name)
        again = SAE.load_from_disk(HERE / name)
        with torch.no_grad():
            code = again.encode(x)
            np.savez(
                HERE / name / "answer.npz", x=x, code=code, output=again.decode(code)
            )
