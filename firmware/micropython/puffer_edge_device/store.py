"""Policy images in the board's file system: written aside, checked, then made the newest by one rename.

``policy-7.bin`` is the seventh install. The newest that passes every check is used; the one before it stays until the next
commit. Power may fail at any byte: until the rename the file ``policy.part`` counts for nothing.
"""

import os
from hashlib import sha256

from .image import BadDigest, BadImage, Image

PART = "policy.part"


class BadOrder(Exception):
    """The argument is the offset that was expected."""


class TooLarge(Exception):
    """More than was announced; the argument is how much that was."""


class Store:
    def __init__(self, folder, feed):
        self.folder = folder + "/" if folder else ""
        self.feed = feed
        self.file = None
        self.total = self.held = 0
        self.announced = self.hash = None

    def counts(self):
        """Install counts on hand, the newest first."""
        names = [name[7:-4] for name in os.listdir(self.folder or ".") if name.startswith("policy-") and name.endswith(".bin")]
        return sorted([int(name) for name in names if name.isdigit()], reverse=True)

    def open(self):
        """The newest sound image and its install count, or None and the count so far."""
        counts = self.counts()
        for count in counts:
            try:
                return Image(self._path(count), self.feed), count
            except (BadImage, BadDigest, OSError, MemoryError):
                pass
        return None, counts[0] if counts else 0

    def begin(self, total, announced):
        self.abandon()
        self.file = open(self.folder + PART, "wb")
        self.total, self.held, self.announced, self.hash = total, 0, announced, sha256()

    def write(self, at, data):
        """Returns the bytes held so far."""
        if self.file is None or at != self.held:
            raise BadOrder(self.held)
        if at + len(data) > self.total:
            raise TooLarge(self.total)
        if self.file.write(data) != len(data):
            self.abandon()
            raise OSError(28)  # no space
        self.hash.update(data)
        self.held += len(data)
        return self.held

    def candidate(self):
        """What arrived, read back from the file system and checked."""
        if self.file is None or self.held != self.total:
            raise BadOrder(self.held)
        announced, arrived = self.announced, self.hash.digest()
        self.abandon()
        if arrived != announced:
            raise BadDigest()
        return Image(self.folder + PART, self.feed)

    def commit(self, candidate):
        """Make the candidate the newest; returns its install count."""
        counts = self.counts()
        count = counts[0] + 1 if counts else 1
        os.rename(candidate.path, self._path(count))
        candidate.path = self._path(count)
        for old in counts[1:]:
            os.remove(self._path(old))
        return count

    def abandon(self):
        """Forget what arrived so far."""
        if self.file:
            self.file.close()
        self.file = None
        self.held = 0

    def _path(self, count):
        return "%spolicy-%d.bin" % (self.folder, count)
