"""Objects that stay out of garbage collection: the tests and what they import.

They are some 260,000 and as old as the process, so each full collection would search them in vain.
A test that measures freezes what else there is besides, and thaws it afterwards.
"""

import gc


class FrozenObjects:
    """State of the one process; asking ``gc`` for the number of frozen objects counts them all."""

    def __init__(self) -> None:
        self._are_thawed = True

    def freeze(self) -> None:
        """Keep all objects that exist now out of garbage collection."""
        gc.freeze()
        self._are_thawed = False

    def thaw(self) -> None:
        """Return all objects to garbage collection, those of the tests among them."""
        gc.unfreeze()
        self._are_thawed = True

    def freeze_again(self) -> None:
        """Collect garbage, and freeze what is left, if it has been thawed."""
        if self._are_thawed:
            gc.collect()
            self.freeze()


frozen_objects = FrozenObjects()
