"""Kernels of GATv2's messages: C for the CPU, Triton for the GPU, PyTorch for everywhere."""
