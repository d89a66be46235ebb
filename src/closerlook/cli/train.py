"""``closerlook train``: one network from a recipe in a file."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from closerlook import files
from closerlook.cli.answer import answer
from closerlook.cli.options import DryRun, Json, Runs, Set
from closerlook.cli.recipes import read
from closerlook.cli.summary import described, summary
from closerlook.cli.work import finish, price_list, priced
from closerlook.runs.store import Store


def train(
    recipe: Annotated[Positional[Path], arg(metavar="RECIPE.json", help_behavior_hint="")],
    changes: Set = (),
    runs: Runs = Path("runs"),
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Train one network from a recipe in a JSON file: data, model, optimizer, epochs, batch_size, seeds.

    The run is named by its recipe: it is reused when it is finished, and goes on where it was stopped. The recipe.json
    of any train run is such a file, and its checkpoints are what closerlook path, surface and barrier take.

    Parameters
    ----------
    recipe
        The file; keys that it does not know are refused.

    Examples
    --------
    closerlook train recipe.json --dry-run
    closerlook train recipe.json --set optimizer.lr=0.2 --set model.options.hidden=[64,32]
    closerlook train runs/train-1a2b3c4d/recipe.json --set seeds.init=1 --set seeds.order=1

    recipe.json at its shortest:
    {"data": {"name": "digits", "n_train": 1000, "n_validation": 200, "n_statistics": 200, "n_read": 500, "seed": 0},
     "model": {"name": "mlp"}, "optimizer": {"lr": 0.1}, "epochs": 5, "batch_size": 50,
     "seeds": {"init": 0, "order": 0, "augment": 0, "noise": 0}}
    """
    store = Store(runs)
    chosen = read(recipe, changes, store)
    if dry_run:
        rows = priced([chosen], store)
        answer({"steps": rows}, f"{files.to_json(rows[0]['recipe'])}{price_list(rows)}", json)
        return 0
    finish([chosen], store)
    result = summary(store.folder(chosen))
    answer(result, described(result), json)
    return 0
