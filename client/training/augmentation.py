"""Random views of training images: turned a little, moved, enlarged, of another exposure. Never mirrored: the heart is on the left."""

import numpy as np
import torch
from torch.nn import functional as F

from rainhill.recipe import AugmentationSection


def draw_views(images: torch.Tensor, section: AugmentationSection, rng: np.random.Generator) -> torch.Tensor:
    """(N, 1, S, S) in [-1, 1] -> the same shape and range, one view of each; what comes in from outside repeats the edge."""

    def uniform(limit: float) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(-limit, limit, len(images)).astype(np.float32))

    angle, scale = uniform(np.deg2rad(section.rotation_deg)), 1 + uniform(section.zoom)
    # In units of half the side, as affine_grid has them.
    right, down = uniform(2 * section.shift), uniform(2 * section.shift)
    across = torch.stack([torch.cos(angle) / scale, -torch.sin(angle) / scale, right], dim=1)
    along = torch.stack([torch.sin(angle) / scale, torch.cos(angle) / scale, down], dim=1)
    grid = F.affine_grid(torch.stack([across, along], dim=1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    gamma, contrast, brightness = torch.exp(uniform(section.gamma)), 1 + uniform(section.contrast), uniform(section.brightness)
    exposed = ((moved + 1) / 2).clamp(0, 1) ** gamma.view(-1, 1, 1, 1)
    bright = (exposed - 0.5) * contrast.view(-1, 1, 1, 1) + 0.5 + brightness.view(-1, 1, 1, 1)
    return bright.clamp(0, 1) * 2 - 1
