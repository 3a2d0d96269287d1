"""The shape of the code: arrows between packages point one way, nothing imports another module's private names."""

import ast
import itertools
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "arbiscale_jax"
LAYERS = (  # a part may import from those before it, and from its own line no other
    ("errors",),
    ("runtime",),
    ("experiments",),  # configurations import nothing; artifacts check a model's against the base one's fields
    ("models", "diffusion"),
    ("baselines",),
    ("artifacts",),
    ("images", "perceptual"),
    ("data",),
    ("training", "inference"),
    ("interop",),
    ("evaluation",),
    ("web",),
    ("cli",),
)
MOST_PARAMETERS = 7


def modules():
    """Yields (dotted name under the package, tree) of every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts), ast.parse(path.read_text())


def is_entry(node: ast.AST) -> bool:
    """Tells whether a statement is what `python -m MODULE` runs: that is the command line's, wherever it stands."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def imports(name: str, tree: ast.AST):
    """Yields (dotted module under the package, names) of what a module imports of the package."""
    package = name.split(".")[:-1]
    for node in itertools.chain(*(ast.walk(part) for part in tree.body if not is_entry(part))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                yield ".".join(part for part in base if part), [alias.name for alias in node.names]
            elif (node.module or "").split(".")[0] == "arbiscale_jax":
                yield ".".join(node.module.split(".")[1:]), [alias.name for alias in node.names]


def part_of(module: str, names: list[str]) -> set[str]:
    return {module.split(".")[0]} if module else set(names)


def test_arrows_between_parts_point_one_way():
    rank = {part: i for i, layer in enumerate(LAYERS) for part in layer}
    upward = []
    for name, tree in modules():
        own = name.split(".")[0]
        if own == "__init__" or name.endswith("__main__"):
            continue
        assert own in rank, f"arbiscale_jax/{own} has no place in LAYERS"
        for module, names in imports(name, tree):
            for part in part_of(module, names) - {own}:
                if part in rank and rank[part] >= rank[own]:
                    upward.append(f"{name} imports {part}")
    assert not upward


def test_modules_import_each_other_in_no_circle():
    graph, known = {}, {name for name, _ in modules()}
    for name, tree in modules():
        found = set()
        for module, names in imports(name, tree):
            for one in [module, f"{module}.__init__" if module else "__init__", *(f"{module}.{n}" for n in names)]:
                if one in known and one != name:
                    found.add(one)
        graph[name] = {one for one in found if not one.endswith("__init__")}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_private_names_stay_in_their_module():
    borrowed = [
        f"{name} imports {module}.{one}"
        for name, tree in modules()
        for module, names in imports(name, tree)
        for one in names
        if one.startswith("_") and not one.startswith("__")
    ]
    assert not borrowed


def test_functions_take_at_most_seven_parameters():
    many = []
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = sum(one.arg not in ("self", "cls") for one in arguments)
                if count > MOST_PARAMETERS:
                    many.append(f"{name}.{node.name} takes {count}")
    assert not many


def test_no_two_modules_of_one_name_mean_different_things():
    names = sorted(name.split(".")[-1] for name, _ in modules() if not name.endswith(("__init__", "__main__")))
    packages = {path.parent.name for path in PACKAGE.rglob("__init__.py")}
    twice = {name for name, found in itertools.groupby(names) if len(list(found)) > 1} | (set(names) & packages)
    assert twice == set()


def test_losses_derive_each_key_by_a_name_of_its_own():
    """`split(key)[i]` equals `fold_in(key, i)` in JAX, so that numbered keys can meet; named ones do not."""
    again, numbered = [], []
    for name, tree in modules():
        if not name.startswith("training.stages."):
            continue
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            named = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "fold_name"]
            again += [f"{name}.{function.name}: {one}" for one in set(named) if named.count(one) > 1]
            numbered += [
                f"{name}.{function.name}: {ast.unparse(call)}"
                for call in calls
                if ast.unparse(call.func) in ("jax.random.split", "jax.random.fold_in")
                and not ast.unparse(call.args[0]).startswith("fold_name(")
            ]
    assert not again and not numbered
