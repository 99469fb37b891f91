"""What a checkpoint's tokenizer and chat template make of an image, a prompt and an answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from client.models._families import Family
from rainhill.errors import BaseModelError


@dataclass(frozen=True, kw_only=True)
class Tokens:
    tokenizer: Any
    family: Family
    image: str
    """The token that stands for a feature of an image, as text."""
    ends: tuple[int, ...]
    """The tokens that end an answer: first the one that is to be written."""

    def prompt(self, text: str, image: str) -> list[int]:
        """By the chat template where there is one; else as the family has it. Tokenised as a whole, as its processor does it."""
        text, begin = self._said(text), self.tokenizer.bos_token or ""
        if self.tokenizer.chat_template is None:
            return self._encoded(self.family.plain(begin, image, text))
        before, found, after = _conversation(self.tokenizer, text).partition(self.family.marker)
        if not found:
            raise BaseModelError(f"the base model's chat template writes no {self.family.marker!r} for an image")
        # Some templates write the token that begins a text, others leave it to the tokenizer.
        begins = before.startswith(begin) or self.tokenizer.encode("")[:1] != [self.tokenizer.bos_token_id]
        return self._encoded(f"{'' if begins else begin}{before}{image}{after}")

    def answer(self, text: str) -> list[int]:
        return [*self._encoded(self._said(text)), self.ends[0]]

    def text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def up_to_end(self, tokens: Sequence[int]) -> list[int]:
        """With the first token that ends them, if there is one."""
        places = [place for place, token in enumerate(tokens) if token in self.ends]
        return list(tokens[: places[0] + 1] if places else tokens)

    def _encoded(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _said(self, text: str) -> str:
        """A text in which nothing is a special token, whatever somebody typed."""
        for token in (*_special(self.tokenizer).values(), self.family.marker, self.image, *self.family.tokens):
            text = text.replace(token, " ")
        return text


def tokens_of(tokenizer: Any, family: Family, config: Any) -> Tokens:
    """Raises BaseModelError for a tokenizer that lacks a token that is needed."""
    known = tokenizer.get_vocab()
    if config.image_token_id not in known.values():
        raise BaseModelError(f"the base model's tokenizer has no token {config.image_token_id}, which stands for an image in config.json")
    for token in family.tokens:
        if token not in known:
            raise BaseModelError(f"the base model's tokenizer has no token {token!r}, which its family writes around an image")
    image = str(tokenizer.convert_ids_to_tokens(config.image_token_id))
    return Tokens(tokenizer=tokenizer, family=family, image=image, ends=_ends(tokenizer))


def _special(tokenizer: Any) -> dict[int, str]:
    return {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if token.special}


def _conversation(tokenizer: Any, prompt: str, answer: str | None = None) -> str:
    """By the chat template; up to where an answer begins, if none is given."""
    from jinja2 import TemplateError

    said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    if answer is not None:
        said.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    try:
        return str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=answer is None))
    except TemplateError as error:
        raise BaseModelError(f"the base model's chat template: {error}") from error


def _ends(tokenizer: Any) -> tuple[int, ...]:
    # Gemma3 and Idefics3 end a turn otherwise than a text, and only their chat templates say so.
    ends = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    if tokenizer.chat_template is not None:
        _, found, after = _conversation(tokenizer, "Report:", "Nothing.").rpartition("Nothing.")
        behind = tokenizer.encode(after.lstrip(), add_special_tokens=False)
        if found and behind and behind[0] in _special(tokenizer):
            ends.insert(0, behind[0])
    if not ends:
        raise BaseModelError("the base model's tokenizer has no token that ends a text")
    return tuple(dict.fromkeys(ends))
