"""The CUDA rasteriser: Triton kernels for the sum of splats, forward and backward."""
