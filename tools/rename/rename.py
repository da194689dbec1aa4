#!/usr/bin/env python3
"""Rename identifiers of a Python tree by what they mean, not by their text; may be run again on any later tree.

    python rename.py TREE [--map rename.toml] [--check] [--no-moves]

What a name means is asked of mypy (which class an attribute belongs to, which function a keyword argument goes to) and
of
the scopes of the syntax tree (locals, parameters). The edits are made at exact positions, so formatting and comments
stay.
Rules whose symbol is not in the tree are counted as gone. A rename that would collide with a name of the same scope is
left out and printed. Afterwards every file is parsed again and its tree compared with the old one: identifiers may
differ only where an edit was made.
"""
from __future__ import annotations

import argparse
import ast
import builtins
import fnmatch
import keyword
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

ROOTS = ("irtool", "tests", "benchmarks", "tools")
TEXTS = ("README.md", "CHANGELOG.md", "pyproject.toml", "weights.toml", "mkdocs.yml", "docs/**/*.md", "benchmarks/*.md", "irtool/**/*.md",
         "irtool/**/*.toml", "tools/**/*.md", "tools/**/*.toml", ".ci/*")


# ---------------------------------------------------------------- mypy: who owns an attribute, whom a call calls


class Semantics:
    """Answers by (path, line, column): `members` of attributes, `names` of globals, `calls` of call expressions."""

    def __init__(self, tree: Path, files: list[Path]):
        from mypy import build
        from mypy.modulefinder import BuildSource
        from mypy.options import Options

        options = Options()
        options.python_version = sys.version_info[:2]
        options.ignore_missing_imports = True
        options.check_untyped_defs = True
        options.export_types = True
        options.preserve_asts = True
        options.incremental = False
        options.cache_dir = os.devnull
        options.mypy_path = [str(tree), *(str(tree / root) for root in ROOTS if root != "irtool")]
        options.per_module_options = {f"{m}.*": {"follow_imports": "skip"} for m in EXTERNAL} | {m: {"follow_imports": "skip"} for m in EXTERNAL}
        options.build_per_module_cache()
        sources = [BuildSource(str(f), module_name(tree, f), None) for f in files]
        os.chdir(tree)
        result = build.build(sources, options)
        self.files = result.files
        self.types = result.types
        self.members: dict[tuple, set[str]] = {}
        self.names: dict[tuple, str] = {}
        self.calls: dict[tuple, set[str]] = {}
        self.firsts: dict[tuple, set[str]] = {}
        self.classes: dict[str, list[str]] = {}  # class -> its members, own ones only
        self.bases: dict[str, list[str]] = {}
        for source in sources:
            node = result.files.get(source.module)
            if node is not None:
                self._walk(node, str(Path(source.path).resolve()))

    def owners(self, expression, name: str) -> set[str]:
        from mypy.nodes import MypyFile, RefExpr, TypeInfo
        from mypy.types import AnyType, CallableType, Instance, NoneType, Overloaded, TupleType, TypedDictType, TypeType, TypeVarType, UnionType, get_proper_type

        if isinstance(expression, RefExpr) and isinstance(expression.node, MypyFile):
            symbol = expression.node.names.get(name)
            return {symbol.fullname if symbol and symbol.fullname else f"{expression.node.fullname}.{name}"}
        if isinstance(expression, RefExpr) and isinstance(expression.node, TypeInfo):
            return self._in_class(expression.node, name)
        kind = self.types.get(expression)
        found: set[str] = set()
        todo = [get_proper_type(kind)] if kind is not None else []
        while todo:
            t = todo.pop()
            if isinstance(t, UnionType):
                todo += [get_proper_type(i) for i in t.items]
            elif isinstance(t, Instance):
                found |= self._in_class(t.type, name)
            elif isinstance(t, (TupleType,)):
                todo.append(t.partial_fallback)
            elif isinstance(t, TypeVarType):
                todo.append(get_proper_type(t.upper_bound))
            elif isinstance(t, TypeType):
                todo.append(get_proper_type(t.item))
            elif isinstance(t, (CallableType, Overloaded)) and t.is_type_obj():
                found |= self._in_class(t.type_object(), name)
        return found

    def _in_class(self, info, name: str) -> set[str]:
        for base in info.mro:
            if name in base.names:
                return {f"{base.fullname}.{name}"}
        return set()

    def callee(self, expression) -> set[str]:
        from mypy.nodes import MemberExpr, RefExpr, TypeInfo, Var
        from mypy.types import CallableType, Instance, get_proper_type

        node = getattr(expression, "node", None)
        if isinstance(node, TypeInfo):
            return {node.fullname}
        if isinstance(expression, MemberExpr):
            owners = self.owners(expression.expr, expression.name)
            if owners:
                return owners
        if isinstance(expression, RefExpr) and node is not None and not isinstance(node, Var):
            return {node.fullname}
        kind = get_proper_type(self.types.get(expression))
        if isinstance(kind, CallableType):
            if kind.is_type_obj():
                return {kind.type_object().fullname}
            if kind.definition is not None:
                return {kind.definition.fullname}
        if isinstance(kind, Instance):
            return self._in_class(kind.type, "__call__")
        if isinstance(expression, RefExpr) and node is not None:
            return {node.fullname}
        return set()

    def _walk(self, file, path: str) -> None:
        from mypy.nodes import CallExpr, ClassDef, MemberExpr, NameExpr, Node, SuperExpr

        todo, met = [file], set()
        while todo:
            o = todo.pop()
            if id(o) in met:
                continue
            met.add(id(o))
            if isinstance(o, (MemberExpr, SuperExpr)) and o.end_column is None:
                pass
            elif isinstance(o, MemberExpr):
                owners = self.owners(o.expr, o.name)
                if not owners and o.fullname and o.kind is not None:
                    owners = {o.fullname}
                self.members[path, o.end_line, o.end_column - len(o.name)] = owners
            elif isinstance(o, SuperExpr):
                for base in o.info.mro[1:] if o.info is not None else ():
                    if o.name in base.names:
                        self.members[path, o.end_line, o.end_column - len(o.name)] = {f"{base.fullname}.{o.name}"}
                        break
            elif isinstance(o, NameExpr):
                if o.fullname and o.kind is not None:
                    self.names[path, o.line, o.column] = o.fullname
            elif isinstance(o, CallExpr):
                key = (path, o.line, o.column, o.end_line, o.end_column)
                self.calls[key] = self.callee(o.callee)
                if o.args:
                    self.firsts[key] = o.args[0]
            elif isinstance(o, ClassDef) and o.info is not None and o.info.fullname:
                self.classes[o.info.fullname] = list(o.info.names)
                self.bases[o.info.fullname] = [b.fullname for b in o.info.mro[1:]]
            kind = type(o)
            if kind not in CHILDREN:
                CHILDREN[kind] = [f for f in FIELDS if hasattr(kind, f)]
            for field in CHILDREN[kind]:
                try:
                    value = getattr(o, field)
                except AttributeError:
                    continue
                stack = [value]
                while stack:
                    v = stack.pop()
                    if isinstance(v, Node):
                        todo.append(v)
                    elif isinstance(v, (list, tuple)):
                        stack += v
                    elif isinstance(v, dict):
                        stack += v.values()


CHILDREN: dict[type, list[str]] = {}
FIELDS = ("defs body expr expr1 expr2 lvalue lvalues rvalue arguments initializer func decorators original_decorators items impl condition "
          "indices sequences condlists left_expr key value generator msg from_expr finally_body else_body handlers types vars targets target base "
          "index begin_index end_index stride operands left right cond if_expr else_expr call callee args subject patterns guards bodies names values "
          "base_type_exprs keywords metaclass removed_base_type_exprs keys class_ref positionals keyword_values rest pattern").split()
EXTERNAL = ("torch", "numpy", "PIL", "skimage", "scipy", "pytest", "hypothesis", "rich", "typer", "click", "safetensors", "huggingface_hub",
            "open_clip", "tifffile", "h5py", "spandrel", "lpips", "torch_fidelity", "torchvision", "transformers", "tensorboard", "tomli", "mypy")


def module_name(tree: Path, file: Path) -> str:
    parts = file.relative_to(tree).with_suffix("").parts
    if parts[0] in ("tests", "benchmarks"):
        parts = parts[1:]
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts) or "tests"


# ---------------------------------------------------------------- scopes


class Scope:
    def __init__(self, node, parent, qualified: str, kind: str):
        self.node, self.parent, self.qualified, self.kind = node, parent, qualified, kind  # module, class, function, comprehension
        self.bound: set[str] = set()
        self.globals: set[str] = set()
        self.children: list[Scope] = []
        self.used: set[str] = set()
        if parent:
            parent.children.append(self)

    def lookup(self, name: str) -> Scope | None:
        scope: Scope | None = self
        first = True
        while scope is not None:
            if name in scope.globals:
                while scope.parent:
                    scope = scope.parent
                return scope
            if name in scope.bound and (first or scope.kind != "class"):
                return scope
            first = False
            scope = scope.parent
        return None

    def function(self) -> Scope:
        scope = self
        while scope.kind == "comprehension" and scope.parent is not None:
            scope = scope.parent
        return scope

    def everything(self) -> set[str]:
        names = self.bound | self.used
        for child in self.children:
            names |= child.everything()
        return names


class Occurrence:
    __slots__ = ("call", "column", "kind", "line", "name", "node", "scope", "symbols")

    def __init__(self, kind, name, line, column, scope, symbols=(), node=None, call=None):
        self.kind, self.name, self.line, self.column, self.scope, self.symbols, self.node, self.call = kind, name, line, column, scope, set(symbols), node, call


class Reader(ast.NodeVisitor):
    """Every identifier of one file, with the symbols it may stand for."""

    def __init__(self, tree: Path, path: Path, semantics: Semantics | None):
        self.path, self.module = path, module_name(tree, path)
        self.text = path.read_text()
        self.lines = self.text.splitlines(keepends=True)
        self.raw = [line.encode() for line in self.lines]
        self.semantics = semantics
        self.key = str(path.resolve())
        self.found: list[Occurrence] = []
        self.imports: dict[str, str] = {}
        self.modules: list[tuple[ast.ImportFrom, str]] = []
        self.tree = ast.parse(self.text)
        self.top = Scope(self.tree, None, self.module, "module")
        self.scope = self.top
        self._bind(self.tree, self.top)
        self.scopes: dict[int, Scope] = {}
        self._body(self.tree.body)

    # binding: which names each scope holds
    def _bind(self, node, scope):
        reader = self

        class Binder(ast.NodeVisitor):
            def visit_FunctionDef(self, n):
                scope.bound.add(n.name)

            visit_AsyncFunctionDef = visit_FunctionDef

            def visit_ClassDef(self, n):
                scope.bound.add(n.name)

            def visit_Lambda(self, n):
                pass

            def _comp(self, n):
                for inner in ast.walk(n):
                    if isinstance(inner, ast.NamedExpr):
                        scope.bound.add(inner.target.id)

            visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comp

            def visit_Name(self, n):
                if isinstance(n.ctx, (ast.Store, ast.Del)):
                    scope.bound.add(n.id)

            def visit_Import(self, n):
                for alias in n.names:
                    scope.bound.add(alias.asname or alias.name.split(".")[0])

            visit_ImportFrom = visit_Import

            def visit_ExceptHandler(self, n):
                if n.name:
                    scope.bound.add(n.name)
                self.generic_visit(n)

            def visit_MatchAs(self, n):
                if n.name:
                    scope.bound.add(n.name)
                self.generic_visit(n)

            def visit_MatchStar(self, n):
                if n.name:
                    scope.bound.add(n.name)

            def visit_Global(self, n):
                scope.globals |= set(n.names)

            def visit_Nonlocal(self, n):
                pass

        binder = Binder()
        for child in node.body if isinstance(node.body, list) else [node.body]:
            binder.visit(child)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            nonlocal_names = {name for inner in ast.walk(node) if isinstance(inner, ast.Nonlocal) for name in inner.names}
            direct = {name for inner in node.body if isinstance(inner, ast.Nonlocal) for name in inner.names}
            scope.bound -= direct | (nonlocal_names & direct)
        scope.bound -= scope.globals

    def _body(self, nodes):
        for node in nodes:
            self.visit(node)

    def _symbol(self, scope: Scope, name: str) -> set[str]:
        owner = scope.lookup(name)
        if owner is None:
            return set()
        if owner.kind == "module":
            if name in self.imports:
                return {self.imports[name]}
            return {f"{self.module}.{name}"}
        if owner.kind == "class":
            return {f"{owner.qualified}.{name}"}
        bound = getattr(owner, "imports", {}).get(name)
        if bound:
            return {bound}
        return {f"{owner.function().qualified}:{name}"}

    def _add(self, kind, name, line, column, symbols, **more):
        self.found.append(Occurrence(kind, name, line, column, self.scope, symbols, **more))

    def _after(self, node, word: str, name: str):
        """Position of the name that follows a keyword such as def or class."""
        line, column = node.lineno, node.col_offset
        pattern = re.compile(rb"\b" + word.encode() + rb"\s+" + name.encode() + rb"\b")
        while line <= len(self.raw):
            match = pattern.search(self.raw[line - 1], column)
            if match:
                return line, match.end() - len(name.encode())
            line, column = line + 1, 0
        raise ValueError(f"{self.path}:{node.lineno}: no {word} {name}")

    def _enter(self, node, name, kind):
        inner = Scope(node, self.scope, f"{self.scope.function().qualified}.{name}", kind)
        return inner

    def visit_FunctionDef(self, node):
        line, column = self._after(node, "def", node.name)
        scope = self.scope
        symbol = f"{scope.qualified}.{node.name}" if scope.kind in ("module", "class") else f"{scope.function().qualified}:{node.name}"
        self._add("def", node.name, line, column, {symbol}, node=node)
        for decorator in node.decorator_list:
            self.visit(decorator)
        a = node.args
        for default in [*a.defaults, *(d for d in a.kw_defaults if d is not None)]:
            self.visit(default)
        for arg in self._args(a):
            if arg.annotation:
                self.visit(arg.annotation)
        if node.returns:
            self.visit(node.returns)
        inner = self._enter(node, node.name, "function")
        self._bind(node, inner)
        self._parameters(a, inner)
        self.scope = inner
        self._body(node.body)
        self.scope = scope

    visit_AsyncFunctionDef = visit_FunctionDef

    @staticmethod
    def _args(a):
        return [x for x in [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg] if x is not None]

    def _parameters(self, a, inner):
        outer, self.scope = self.scope, inner
        for arg in self._args(a):
            inner.bound.add(arg.arg)
            self._add("parameter", arg.arg, arg.lineno, arg.col_offset, {f"{inner.qualified}:{arg.arg}"})
        self.scope = outer

    def visit_Lambda(self, node):
        a = node.args
        for default in [*a.defaults, *(d for d in a.kw_defaults if d is not None)]:
            self.visit(default)
        scope = self.scope
        inner = self._enter(node, "<lambda>", "function")
        self._bind(node, inner)
        self._parameters(a, inner)
        self.scope = inner
        self.visit(node.body)
        self.scope = scope

    def visit_ClassDef(self, node):
        line, column = self._after(node, "class", node.name)
        scope = self.scope
        symbol = f"{scope.qualified}.{node.name}" if scope.kind in ("module", "class") else f"{scope.function().qualified}:{node.name}"
        self._add("def", node.name, line, column, {symbol}, node=node)
        for part in [*node.decorator_list, *node.bases]:
            self.visit(part)
        for word in node.keywords:
            self.visit(word.value)
        inner = self._enter(node, node.name, "class")
        self._bind(node, inner)
        self.scope = inner
        self._body(node.body)
        self.scope = scope

    def _comprehension(self, node):
        first = node.generators[0]
        self.visit(first.iter)
        scope = self.scope
        inner = self._enter(node, "<comprehension>", "comprehension")
        inner.qualified = scope.function().qualified
        for generator in node.generators:
            for n in ast.walk(generator.target):
                if isinstance(n, ast.Name):
                    inner.bound.add(n.id)
        self.scope = inner
        for i, generator in enumerate(node.generators):
            self.visit(generator.target)
            if i:
                self.visit(generator.iter)
            for test in generator.ifs:
                self.visit(test)
        if isinstance(node, ast.DictComp):
            self.visit(node.key)
            self.visit(node.value)
        else:
            self.visit(node.elt)
        self.scope = scope

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self.module.split(".")
        if self.path.name != "__init__.py":
            package = package[:-1]
        package = package[: len(package) - node.level + 1]
        return ".".join([*package, *([node.module] if node.module else [])])

    def visit_ImportFrom(self, node):
        module = self._absolute(node)
        if node.module:
            self.modules.append((node, module))
        for alias in node.names:
            target = resolve(self.semantics, module, alias.name)
            self._add("import", alias.name, alias.lineno, alias.col_offset, {target, f"{module}.{alias.name}"}, node=alias)
            bound = alias.asname or alias.name
            if self.scope.kind == "module":
                self.imports[bound] = target
            else:
                owner = self.scope
                if not hasattr(owner, "imports"):
                    owner.imports = {}
                owner.imports[bound] = target

    def visit_Import(self, node):
        for alias in node.names:
            bound = alias.asname or alias.name.split(".")[0]
            target = alias.name if alias.asname else alias.name.split(".")[0]
            if self.scope.kind == "module":
                self.imports[bound] = target
            else:
                if not hasattr(self.scope, "imports"):
                    self.scope.imports = {}
                self.scope.imports[bound] = target

    def visit_Name(self, node):
        symbols = self._symbol(self.scope, node.id)
        self.scope.used.add(node.id)
        self._add("name", node.id, node.lineno, node.col_offset, symbols)

    def visit_Attribute(self, node):
        self.visit(node.value)
        column = node.end_col_offset - len(node.attr.encode())
        symbols = set()
        if self.semantics:
            line = self.raw[node.end_lineno - 1]
            characters = len(line[:column].decode())
            symbols = self.semantics.members.get((self.key, node.end_lineno, characters), set())
            if not symbols:
                symbols = self.semantics.members.get((self.key, node.end_lineno, column), set())
        dotted = self._dotted(node)
        if dotted:
            symbols = symbols | {dotted}
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") and not symbols:
            scope = self.scope
            while scope and scope.kind != "class":
                scope = scope.parent
            if scope:
                symbols = {f"{scope.qualified}.{node.attr}"}
        self._add("attribute", node.attr, node.end_lineno, column, symbols, node=node)

    def _dotted(self, node):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name):
            symbols = self._symbol(self.scope, node.id)
            if len(symbols) == 1 and ":" not in (s := next(iter(symbols))):
                for part in reversed(parts):
                    s = resolve(self.semantics, s, part)
                return s
        return None

    def visit_Call(self, node):
        key = (self.key, node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
        callees = set(self.semantics.calls.get(key, set())) if self.semantics else set()
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ("setattr", "delattr", "getattr", "hasattr", "__setattr__", "attrgetter") and len(node.args) > 1 and isinstance(node.args[1], ast.Constant) and isinstance(node.args[1].value, str):
            self._attribute_string(node, key)
        for word in node.keywords:
            if word.arg:
                owners = set()
                for callee in callees:
                    owners |= {f"{callee}:{word.arg}", f"{callee}.{word.arg}", f"{callee}.__init__:{word.arg}"}
                    if callee == "dataclasses.replace" and self.semantics:
                        first = self.semantics.firsts.get(key)
                        if first is not None:
                            owners |= self.semantics.owners(first, word.arg)
                if name == "partial" and node.args:
                    inner = self._dotted(node.args[0]) if isinstance(node.args[0], ast.Attribute) else None
                    if isinstance(node.args[0], ast.Name):
                        inner = next(iter(self._symbol(self.scope, node.args[0].id)), None)
                    if inner:
                        owners.add(f"{inner}:{word.arg}")
                self._add("keyword", word.arg, word.lineno, word.col_offset, owners, node=word, call=callees or {f"?{name}"})
        self.generic_visit(node)

    def _attribute_string(self, node, key):
        target, constant = node.args[0], node.args[1]
        symbols = set()
        first = self.semantics.firsts.get(key) if self.semantics else None
        if first is not None:
            symbols = self.semantics.owners(first, constant.value)
        dotted = None
        if isinstance(target, ast.Name):
            dotted = next(iter(self._symbol(self.scope, target.id)), None)
        elif isinstance(target, ast.Attribute):
            dotted = self._dotted(target)
        if dotted and ":" not in dotted:
            symbols = symbols | {f"{dotted}.{constant.value}"}
        self._add("string", constant.value, constant.lineno, constant.col_offset + 1, symbols)

    def visit_Assign(self, node):
        if self.scope.kind == "module" and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            for item in ast.walk(node.value):
                if isinstance(item, ast.Constant) and isinstance(item.value, str):
                    self._add("string", item.value, item.lineno, item.col_offset + 1, self._symbol(self.scope, item.value))
        self.generic_visit(node)

    def visit_ExceptHandler(self, node):
        if node.name:
            line, column = self._after(node, "as", node.name)
            self._add("name", node.name, line, column, self._symbol(self.scope, node.name))
        self.generic_visit(node)

    def visit_Global(self, node):
        word = "global" if isinstance(node, ast.Global) else "nonlocal"
        text = self.raw[node.lineno - 1]
        for name in node.names:
            match = re.search(rb"\b" + name.encode() + rb"\b", text[node.col_offset + len(word):])
            if match:
                self._add("name", name, node.lineno, node.col_offset + len(word) + match.start(), self._symbol(self.scope, name))

    visit_Nonlocal = visit_Global


def resolve(semantics, module: str, name: str) -> str:
    if semantics is None:
        return f"{module}.{name}"
    node = semantics.files.get(module)
    if node is not None:
        symbol = node.names.get(name)
        if symbol is not None and symbol.fullname:
            return symbol.fullname
    return f"{module}.{name}"


# ---------------------------------------------------------------- rules


class Rules:
    def __init__(self, table: dict):
        self.modules: dict[str, str] = table.get("modules", {})
        self.spelling: dict[str, str] = table.get("spelling", {})
        shared = set(table.get("keep", {}).get("functions_named_like_modules", []))
        self.exact: dict[str, str] = {m: n.rpartition(".")[2] for m, n in self.modules.items() if m not in shared}
        self.shared = shared
        self.globs: list[tuple[str, re.Pattern, str, str]] = []
        self.used: Counter = Counter()
        for old, new in table.get("rename", {}).items():
            if any(c in old for c in "*?["):
                tail = re.split(r"[.:]", old)[-1]
                self.globs.append((old, re.compile(fnmatch.translate(old)), tail, new))
            else:
                self.exact[old] = new
        self.strings = table.get("strings", [])
        self.keep = [re.compile(fnmatch.translate(k)) for k in table.get("keep", {}).get("symbols", [])]
        self.by_tail: dict[str, list] = defaultdict(list)
        self.globs.sort(key=lambda entry: -len(entry[0]))  # the more a pattern says, the sooner it counts
        self.attributes: dict[str, str] = table.get("attributes", {})
        for entry in self.globs:
            self.by_tail[entry[2]].append(entry)

    def find(self, symbol: str) -> str | None:
        # the map may be written with old or with new module names
        if symbol not in self.exact and any(k.match(symbol) for k in self.keep):
            return None
        for candidate in (symbol, *self._older(symbol)):
            if candidate in self.exact:
                self.used[candidate] += 1
                return self.exact[candidate]
            tail = re.split(r"[.:]", candidate)[-1]
            for old, pattern, _, new in self.by_tail.get(tail, ()):
                if pattern.match(candidate):
                    self.used[old] += 1
                    return new
        if symbol.startswith(("irtool.", "test", "conftest")):
            tail = re.split(r"[.:]", symbol)[-1]
            if (new := self.respell(tail)) != tail:
                return new
        return None

    def respell(self, name: str) -> str:
        for old, new in self.spelling.items():
            name = name.replace(old, new).replace(old.capitalize(), new.capitalize()).replace(old.upper(), new.upper())
        return name

    def module(self, name: str) -> str:
        """The new name of a module, or of a module in a package that has a new name."""
        for old, new in self.modules.items():
            if name == old or name.startswith(old + "."):
                return new + name[len(old):]
        return name

    def _older(self, symbol: str):
        for old, new in self.modules.items():
            if symbol == new or symbol.startswith((new + ".", new + ":")):
                yield old + symbol[len(new):]

    def names(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for old, new in [*self.exact.items(), *((g[0], g[3]) for g in self.globs)]:
            found[re.split(r"[.:]", old)[-1]].add(new)
        return found


def python_files(tree: Path) -> list[Path]:
    return sorted(p for root in ROOTS if (tree / root).is_dir() for p in (tree / root).rglob("*.py") if "__pycache__" not in p.parts)


def foreign_members() -> set[str]:
    names: set[str] = set()
    for kind in (str, bytes, list, dict, set, tuple, int, float, Path, re.Match, re.Pattern, argparse.Namespace, Counter, type, object, BaseException, OSError):
        names |= set(dir(kind))
    try:
        import numpy
        import torch

        for kind in (torch.Tensor, torch.nn.Module, numpy.ndarray, torch.Generator, torch.optim.AdamW, torch.dtype, torch.device):
            names |= set(dir(kind))
    except ImportError:
        pass
    try:
        from PIL import Image

        names |= set(dir(Image.Image))
    except ImportError:
        pass
    return names


# ---------------------------------------------------------------- the run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--map", type=Path, default=Path(__file__).with_name("rename.toml"))
    parser.add_argument("--check", action="store_true", help="print what would be done, write nothing")
    parser.add_argument("--no-moves", action="store_true", help="leave module files where they are")
    parser.add_argument("-v", "--verbose", action="store_true")
    args = parser.parse_args()
    tree = args.tree.resolve()
    rules = Rules(tomllib.loads(args.map.read_text()))
    files = python_files(tree)
    print(f"{len(files)} files; mypy reads them ...", file=sys.stderr)
    semantics = Semantics(tree, files)
    readers = [Reader(tree, f, semantics) for f in files]

    owners_of: dict[str, set[str]] = defaultdict(set)  # member name -> classes of the tree that have it
    for cls, members in semantics.classes.items():
        for member in members:
            owners_of[member].add(cls)
    strange = foreign_members()
    parameters: dict[str, set[str]] = defaultdict(set)
    for reader in readers:
        for o in reader.found:
            if o.kind == "parameter":
                parameters[o.name] |= o.symbols

    known = {s for group in parameters.values() for s in group} | {f"{c}.{m}" for c, ms in semantics.classes.items() for m in ms}
    own_modules = {module_name(tree, f) for f in files}

    def ours(symbol: str) -> bool:
        head = symbol.split(":")[0]
        return any(head == m or head.startswith(m + ".") for m in own_modules)

    def inherited(symbols: set[str]) -> set[str]:
        """The symbols, and the same members of base classes: a rule for a protocol reaches what subclasses it."""
        more = set(symbols)
        for s in symbols:
            if ":" in s:
                continue
            head, _, member = s.rpartition(".")
            for base in semantics.bases.get(head, ()):
                more.add(f"{base}.{member}")
        return more

    problems: list[str] = []
    edits: dict[Path, list[tuple[int, int, str, str]]] = {}
    renamed_in: dict[Path, dict[str, str]] = defaultdict(dict)
    names = rules.names()
    for reader in readers:
        todo: list[tuple[int, int, str, str]] = []
        scopes_renamed: dict[tuple[int, str], tuple[Scope, str]] = {}
        for o in reader.found:
            if o.name not in names and rules.respell(o.name) == o.name:
                continue
            symbols = o.symbols
            if o.kind == "keyword":  # the parameter that is meant, where it is known
                symbols = {s for s in symbols if s in known} or symbols
            answers = {new for s in symbols if (new := rules.find(s)) is not None}
            answers = answers or {new for s in inherited(symbols) if (new := rules.find(s)) is not None}
            where = f"{reader.path.relative_to(tree)}:{o.line}"
            if not answers and not o.symbols and o.kind in ("attribute", "string"):
                override = next((new for key, new in rules.attributes.items() if fnmatch.fnmatch(f"{reader.path.relative_to(tree)}:{o.name}", key)), None)
                classes = owners_of.get(o.name, set())
                if not reader.module.startswith(("test", "conftest")) and not override:  # a class that the file has to do with
                    met = {".".join(i.split(".")[:3]) for i in reader.imports.values()} | {reader.module}
                    if not any(c.startswith(tuple(met)) for c in classes):
                        continue
                verdicts = {rules.find(f"{c}.{o.name}") for c in classes}
                if override:
                    answers = {override}
                elif classes and len(verdicts) == 1 and None not in verdicts and o.name not in strange:
                    answers = verdicts
                elif verdicts - {None} and o.name not in strange:
                    problems.append(f"{where}: whose attribute is .{o.name}? left as it is")
            if not answers and o.kind == "keyword" and all(c.startswith("?") for c in o.call):
                candidates = {rules.find(s) for s in parameters.get(o.name, ())} | {rules.find(f"{c}.{o.name}") for c in owners_of.get(o.name, ())}
                if len(candidates) == 1 and None not in candidates:
                    answers = candidates
                elif candidates - {None}:
                    problems.append(f"{where}: keyword {o.name}= of {o.call}: left as it is")
            if not answers:
                continue
            if len(answers) > 1:
                problems.append(f"{where}: {o.name} has several new names: {sorted(answers)}")
                continue
            new = answers.pop()
            if new == o.name:
                continue
            if not new.isidentifier() or keyword.iskeyword(new):
                problems.append(f"{where}: {new} is no identifier")
                continue
            if o.kind in ("name", "parameter", "def") or (o.kind == "import" and o.node.asname is None):
                owner = o.scope.lookup(o.name) or o.scope
                if o.kind == "parameter":
                    owner = o.scope
                scopes_renamed[id(owner), o.name] = (owner, new)
            todo.append((o.line, o.column, o.name, new))
        for node, module in reader.modules:
            new_module = rules.module(module)
            if new_module != module:
                line = reader.raw[node.lineno - 1]
                column = line.index(b"from", node.col_offset) + 4
                column = line.index(node.module.encode(), column)
                if node.level:
                    package = module[: len(module) - len(node.module)]
                    package = rules.module(package.rstrip(".")) + "."
                    if new_module == package + node.module:
                        continue
                    if not new_module.startswith(package):
                        problems.append(f"{reader.path}:{node.lineno}: {new_module} left its package")
                        continue
                    todo.append((node.lineno, column, node.module, new_module[len(package):]))
                else:
                    todo.append((node.lineno, column, node.module, new_module))
        # collisions
        bad: set[tuple[str, str]] = set()
        for (_, old), (scope, new) in scopes_renamed.items():
            if scope.kind in ("function", "comprehension"):
                clash = new in scope.everything()
            elif scope.kind == "class":
                clash = new in scope.bound
            else:
                clash = new in scope.everything() and old not in {n for n in [new]}
            others = [o for (i, o), (s, n) in scopes_renamed.items() if s is scope and n == new and o != old]
            stays = {o for (i, o), (s, n) in scopes_renamed.items() if o == new}
            if clash and not stays or others:
                problems.append(f"{reader.path.relative_to(tree)}: in {scope.qualified}: {old} -> {new} would meet a name that is there")
                bad.add((old, scope.qualified))
        if bad:
            skip = {(o.line, o.column) for o in reader.found for old, qualified in bad
                    if o.name == old and ((o.scope.lookup(old) or o.scope).qualified == qualified)}
            todo = [t for t in todo if (t[0], t[1]) not in skip]
        if todo:
            edits[reader.path] = todo
            for _, _, old, new in todo:
                if "." in old or "." in new:
                    continue
                renamed_in[reader.path][old] = new

    changed = 0
    for reader in readers:
        text = reader.text
        todo = sorted(set(edits.get(reader.path, [])), reverse=True)
        lines = list(reader.raw)
        for line, column, old, new in todo:
            row = lines[line - 1]
            if row[column: column + len(old.encode())] != old.encode():
                problems.append(f"{reader.path.relative_to(tree)}:{line}: expected {old} at column {column}")
                continue
            lines[line - 1] = row[:column] + new.encode() + row[column + len(old.encode()):]
        after = b"".join(lines).decode()
        if todo:
            compare(reader, ast.parse(after), problems)
        after = in_words(after, renamed_in[reader.path], names, ast.parse(after))
        after = modules_in(after, rules, python=True)
        after = symbols_in(after, rules, names)
        after = wrap(strings_in(after, rules, reader.path.relative_to(tree)))
        if after != text:
            changed += 1
            try:
                ast.parse(after)
            except SyntaxError as e:
                problems.append(f"{reader.path}: does not parse any more: {e}")
                continue
            if not args.check:
                reader.path.write_text(after)
    for pattern in TEXTS:
        for path in sorted(tree.glob(pattern)):
            if path.is_file():
                text = path.read_text()
                after = strings_in(modules_in(text, rules, python=False), rules, path.relative_to(tree))
                after = symbols_in(after, rules, names)
                if after != text:
                    changed += 1
                    if not args.check:
                        path.write_text(after)
    if not args.check and not args.no_moves:
        for old, new in rules.modules.items():
            move(tree, old, new)
    gone = [r for r in [*rules.exact, *(g[0] for g in rules.globs)] if not rules.used[r]]
    for problem in sorted(set(problems)):
        print("!", problem)
    if args.verbose:
        for rule in gone:
            print("gone:", rule)
    print(f"{changed} files changed, {sum(map(len, edits.values()))} identifiers; {len(gone)} of {len(rules.exact) + len(rules.globs)} rules found nothing;"
          f" {len(set(problems))} to look at")
    return 0


def compare(reader: Reader, after: ast.AST, problems: list[str]) -> None:
    """The new tree is the old one but for identifiers (and the strings that name them)."""

    def shape(tree):
        kinds = []
        for node in ast.walk(tree):
            kinds.append((type(node).__name__, getattr(node, "value", None) if isinstance(node, ast.Constant) and not isinstance(node.value, str) else None))
        return kinds

    if shape(reader.tree) != shape(after):
        problems.append(f"{reader.path}: the syntax tree is another one")


def in_words(text: str, renamed: dict[str, str], names, tree: ast.AST) -> str:
    """Backticked mentions in comments and docstrings, of what was renamed in this file."""
    if not renamed:
        return text
    lines = text.splitlines(keepends=True)
    spans: list[range] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            spans.append(range(node.lineno - 1, node.end_lineno))
    docs = {i for span in spans for i in span}
    for i, line in enumerate(lines):
        start = 0 if i in docs else line.find("#")
        if start < 0:
            continue
        head, tail = line[:start], line[start:]
        for old, new in renamed.items():
            if len(names.get(old, ())) == 1:
                tail = re.sub(rf"(`[^`\n]*?)\b{re.escape(old)}\b(?=[^`\n]*`)", lambda m: m.group(1) + new, tail) if f"`{old}" in tail or f".{old}`" in tail else tail
        lines[i] = head + tail
    return "".join(lines)


def wrap(text: str) -> str:
    """Docstring and comment lines of at most 120 characters; nothing else is touched."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return text
    docs = {i for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str) for i in range(node.lineno - 1, node.end_lineno)}
    lines = text.splitlines(keepends=True)
    out: list[str] = []
    for i, line in enumerate(lines):
        while len(line.rstrip("\n")) > 120 and (i in docs or line.lstrip().startswith("# ")):
            indent = line[: len(line) - len(line.lstrip())]
            space = line.rfind(" ", 0, 120)
            if space <= len(indent) + 2:
                break
            out.append(line[:space].rstrip() + "\n")
            line = indent + ("# " if line.lstrip().startswith("# ") else "") + line[space + 1 :]
        out.append(line)
    return "".join(out)



def modules_in(text: str, rules: Rules, python: bool) -> str:
    """Dotted names and paths of modules in strings, comments and pages."""
    for old, new in rules.modules.items():
        if old.rpartition(".")[2] not in text:
            continue
        dotted = rf"(?<![\w./]){re.escape(old)}" + (r"(?=\.\w)" if old in rules.shared else r"(?![\w])")
        text = re.sub(dotted, new, text)
        for a, b in ((old, new), (old.removeprefix("irtool."), new.removeprefix("irtool."))):
            a, b = a.replace(".", "/"), b.replace(".", "/")
            if "/" in a:
                text = re.sub(rf"(?<![\w/.]){re.escape(a)}(?=\.py\b|/\w)", b, text)
                text = re.sub(rf"(?<=\.\./)irtool/{re.escape(a)}(?=\.py\b|/\w)", "irtool/" + b, text)
    return text


def strings_in(text: str, rules: Rules, path: Path) -> str:
    for rule in rules.strings:
        if any(fnmatch.fnmatch(str(path), g) for g in rule["files"]):
            for old, new in [*rule.get("replace", {}).items(), *rule.get("pairs", [])]:
                rules.used["string " + old] += text.count(old)
                text = text.replace(old, new)
    return text


AMBIGUOUS = {"Job", "Request", "Step", "Found", "Record", "Outcome", "Full", "Whole", "Local", "Own", "Source", "Done", "Raw", "Share", "State", "Group"}


def symbols_in(text: str, rules: Rules, names) -> str:
    """In prose: the full dotted name of anything renamed, and a class by its bare name in backticks."""
    for old, new in rules.exact.items():
        if ":" in old:
            continue
        head, _, tail = old.rpartition(".")
        if tail not in text:
            continue
        for place in {head, rules.module(head)}:
            if f"{place}.{tail}" not in text:
                continue
            text = re.sub(rf"(?<![\w.]){re.escape(f'{place}.{tail}')}(?![\w])", f"{rules.module(head)}.{new}", text)
        if "`" not in text:
            continue
        short = ".".join(old.split(".")[-2:])
        text = re.sub(rf"`{re.escape(short)}(?=[`(\[])", f"`{'.'.join([*short.split('.')[:-1], new])}", text)
        if tail[:1].isupper() and not tail.isupper() and len(names[tail]) == 1 and tail not in AMBIGUOUS:
            text = re.sub(rf"`{tail}(?=[`.(])", f"`{new}", text)
    return text


def move(tree: Path, old: str, new: str) -> None:
    a, b = tree / old.replace(".", "/"), tree / new.replace(".", "/")
    for source, target in ((a.with_suffix(".py"), b.with_suffix(".py")), (a, b)):
        if source.exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["git", "-C", str(tree), "mv", str(source), str(target)], check=True)


if __name__ == "__main__":
    assert builtins
    raise SystemExit(main())
