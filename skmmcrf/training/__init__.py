"""Training in torch: losses, the loop, augmentation, callbacks, and states that outlast a process."""
