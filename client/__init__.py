"""The hospital's side: data, base models, training, privacy. It never imports the coordinator's, nor the simulation's."""

import logging

# Where a base model is packed by it, it warns of kernels for the CPU that it would fetch from a hub.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
