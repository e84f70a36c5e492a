"""One `stillhouse up` for the tests of this folder, as in `tests/operate`."""

from tests.operate.conftest import shared_recipe, tiny_base, up

__all__ = ["shared_recipe", "tiny_base", "up"]
