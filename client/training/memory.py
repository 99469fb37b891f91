"""What a site keeps of a run from round to round and never sends: tensors of its own, on its own disk."""

from pathlib import Path

from rainhill.adapter import Adapter
from rainhill.errors import ProtocolError
from rainhill.files import write_whole


class Memory:
    """One site's folder of one run. A round reads what the rounds before it left, so a round that is done again does the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def before(self, number: int) -> Adapter | None:
        """What the site kept at the end of its last round before this one; None where it has kept nothing yet."""
        earlier = [path for path in sorted(self.folder.glob("round-*.safetensors")) if path.name < _name(number)]
        if not earlier:
            return None
        try:
            return Adapter.from_bytes(earlier[-1].read_bytes())
        except ProtocolError as error:
            raise ProtocolError(f"{earlier[-1]}: {error}") from error

    def keep(self, number: int, adapter: Adapter) -> None:
        """Whole or not at all; a round that was kept before is kept anew."""
        write_whole(self.folder / _name(number), adapter.to_bytes(), private=True)


def _name(number: int) -> str:
    return f"round-{number:06d}.safetensors"
