"""How a drafted report is measured against the one that a radiologist wrote."""
