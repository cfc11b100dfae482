"""File with one secret, such as a Docker or Kubernetes secret mounted into the container."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - pydantic reads the annotation
from typing import Final

from stream_scorer.core.charset import decode_text
from stream_scorer.errors import SettingsError
from stream_scorer.file_reader import read_file
from stream_scorer.settings.secret_text import SecretTextError, clean_secret

_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class SecretFile:
    """Location of a secret. The content is in no attribute, so no repr shows it.

    Attributes:
        key: the setting, such as ``genesys.client_secret``.
        file: the file with the secret.
        origin: the variable or the key that names the file.
    """

    key: str
    file: Path
    origin: str

    def read(self) -> str:
        """Return the current secret, cleaned by `clean_secret`.

        Raises:
            SettingsError: one line with key, file, origin and problem; never the content.
        """
        try:
            return clean_secret(self.read_text())
        except SecretTextError as error:
            raise SettingsError(f"{self.key}: {self}, {error}") from None

    def read_text(self) -> str:
        """Return the current text of the file.

        Raises:
            SettingsError: as for `read`.
        """
        try:
            content = read_file(self.file, _MAX_BYTES)
            text = decode_text(content) if len(content) <= _MAX_BYTES else None
        except OSError as error:
            raise SettingsError(f"{self.key}: cannot read {self}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{self.key}: {self}, is not UTF-8 text") from None
        except ValueError:
            raise SettingsError(f"{self.key}: cannot read {self}: it cannot be a file name") from None
        if not text:
            raise SettingsError(f"{self.key}: {self}, {'is larger than 64 kB' if text is None else 'is empty'}")
        return text

    @property
    def is_kept(self) -> bool:
        """Whether the file can be read again; a pipe, such as the shell's ``<(…)``, is empty the second time."""
        return self.file.is_file()

    def __str__(self) -> str:
        return f"{self.file}, named by {self.origin}"
