"""A home and an `up` for the tests of this folder, as in `tests/operate`."""

from tests.operate.conftest import make_cli, shared_recipe, tiny_base, up

__all__ = ["make_cli", "shared_recipe", "tiny_base", "up"]
