"""HSTL's operators in Triton, imported only when used. Memory and tables are torch's; nothing waits for the device.

A feature map is [frames, rows, columns, channels] in memory, `x` of [n, c, t, h, w] in `torch.channels_last_3d`.
"""
