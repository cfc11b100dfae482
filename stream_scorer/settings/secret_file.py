"""A file that holds one secret, such as a Docker or Kubernetes secret that is mounted into the container."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - pydantic reads the annotation
from typing import Final

from stream_scorer.core.charset import decode_text
from stream_scorer.errors import SettingsError
from stream_scorer.settings.secret_text import SecretTextError, clean_secret

_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class SecretFile:
    """The place of a secret. The content is in no attribute, so it shows in no repr.

    Attributes:
        key: the setting, such as ``genesys.client_secret``.
        file: where the secret stands.
        origin: the variable or the key that names the file.
    """

    key: str
    file: Path
    origin: str

    def read(self) -> str:
        """Return the secret as of now, without what stands around it; see `clean_secret`.

        Raises:
            SettingsError: one line with key, file and origin, and what is wrong; never the content.
        """
        try:
            return clean_secret(self.read_text())
        except SecretTextError as error:
            raise SettingsError(f"{self.key}: {self}, {error}") from None

    def read_text(self) -> str:
        """Return the whole text of the file as of now.

        Raises:
            SettingsError: as for `read`.
        """
        try:
            with self.file.open("rb") as stream:
                content = stream.read(_MAX_BYTES + 1)
            text = decode_text(content) if len(content) <= _MAX_BYTES else None
        except OSError as error:
            raise SettingsError(f"{self.key}: cannot read {self}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{self.key}: {self}, is not UTF-8 text") from None
        except ValueError:
            raise SettingsError(f"{self.key}: cannot read {self}: it can be no file's name") from None
        if not text:
            raise SettingsError(f"{self.key}: {self}, {'is larger than 64 kB' if text is None else 'is empty'}")
        return text

    @property
    def is_kept(self) -> bool:
        """Whether the file can be read again: a pipe, as the shell's ``<(…)`` makes one, is empty then."""
        return self.file.is_file()

    def __str__(self) -> str:
        return f"{self.file}, named by {self.origin}"
