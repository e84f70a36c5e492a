"""`python -m flows.prepare_server`: what `up` makes on its own Prefect server, for one that runs elsewhere.

The automations (retrain, notices, lost runs), and the home's recipes as choices of the form. After `prefect deploy`.
"""

import os
import sys

import httpx

from flows.environment import prepare
from flows.prefect_api import offer_recipes
from pipelines.recipe_files import recipe_names
from stillhouse.errors import StillhouseError, UserError
from stillhouse.home import find_home, make_home
from tasks.automations import ensure_automations


def prepare_server() -> None:
    """Raises `StillhouseError`."""
    home = make_home(find_home())
    prepare(home)
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        raise UserError(
            "PREFECT_API_URL is not set", "Set it to the server's address, for example http://prefect:4200/api"
        )
    try:
        ensure_automations(api)
        offer_recipes(api, recipe_names(home))
    except (httpx.HTTPError, OSError) as error:
        raise StillhouseError(f"the Prefect server {api} does not answer: {error}", "Start it, then deploy") from None


if __name__ == "__main__":
    try:
        prepare_server()
    except StillhouseError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.code)
