"""What users give: arrays, files and datasets, checked and read."""
