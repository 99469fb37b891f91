"""PEFT without bitsandbytes, which it imports where it is installed, and with it torch's compiler: half of a command's start.

It has no use for it here: LoRA pairs are attached before a base model is packed into 4 bits.
"""

import sys

# To import the name is refused as long as this stands there, and to look for it finds nothing.
_loaded = sys.modules.get("bitsandbytes")
sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
try:
    from peft import LoraConfig, inject_adapter_in_model
    from peft.import_utils import is_bnb_4bit_available, is_bnb_available
    from peft.tuners.lora import LoraLayer

    # What they say is remembered.
    assert not is_bnb_available()
    assert not is_bnb_4bit_available()
finally:
    del sys.modules["bitsandbytes"]
    if _loaded is not None:
        sys.modules["bitsandbytes"] = _loaded

__all__ = ["LoraConfig", "LoraLayer", "inject_adapter_in_model"]
