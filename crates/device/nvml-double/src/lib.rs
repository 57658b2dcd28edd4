//! A small cdylib with NVML's C ABI, scripted through the environment, for tests without a GPU.
