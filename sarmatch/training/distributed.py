"""Batches that several processes share."""

import torch
import torch.distributed as dist


def gather(values: torch.Tensor) -> torch.Tensor:
    """Rows of all processes in their order.

    Each process takes the loss of the whole batch but sends a gradient through its own rows alone. The mean over
    processes that distributed training takes would make it too small by their number, so that much it is raised here.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    count = dist.get_world_size()
    parts = [torch.empty_like(values) for _ in range(count)]
    dist.all_gather(parts, values.detach().contiguous())
    if values.requires_grad:
        values.register_hook(lambda gradient: gradient * count)
    parts[dist.get_rank()] = values
    return torch.cat(parts)
