"""Expands a row to its jobs: template, variants, overrides, seed and name, each validated like a single submit."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, Field, ValidationError

from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.recipe import JobRequest, Prompt, Seed, canonical_json
from imagefarm.text import Label, Text
from scheduler.assets.named_images import IMAGE_FIELDS
from scheduler.batches.table.columns import IDENTITY_COLUMNS, RECIPE_COLUMNS
from scheduler.batches.table.file_names import MAX_STEM_BYTES, NamePattern, NameRegistry, default_pattern, sanitize
from scheduler.batches.table.options import BatchOptions
from scheduler.batches.table.prompt_hints import prompt_hints
from scheduler.batches.table.rows import Row
from scheduler.batches.table.seeds import SeedPolicy, choose_seed
from scheduler.batches.table.sheet_errors import sheet_error
from scheduler.batches.table.spool import PlannedJob
from scheduler.batches.table.table_text import refuse
from scheduler.batches.table.template import PromptTemplate, RowTemplateError
from scheduler.batches.table.variants import combinations
from scheduler.queue.new_job import NewJob

MAX_BASES = 1000
"""Distinct recipe settings that are cached per table; the cache is emptied when it is full."""
TEMPLATE_SECONDS = 30.0
"""Time that one table may spend in its template, in seconds."""

JSON = json.JSONEncoder(ensure_ascii=False)


class RowExpansionError(Exception):
    """The row cannot become jobs; `errors` holds the reasons."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__(errors[0].detail)
        self.errors = errors


class _Varying(BaseModel):
    """The fields that differ from row to row. All others are validated once for the rows that share them."""

    prompt: Prompt
    seed: Seed
    labels: dict[Label, Annotated[Text, Field(max_length=256)]]
    custom_id: Annotated[Text, Field(min_length=1, max_length=128)] | None


class RowExpander:
    """Makes the jobs of one table's rows. `columns` None: they are not known in advance."""

    def __init__(
        self, options: BatchOptions, columns: tuple[str, ...] | None, make_job: Callable[[dict[str, Any]], NewJob]
    ) -> None:
        """Raises InvalidRequest for errors that affect every row, so that each is reported once."""
        self.options = options
        self.make_job = make_job
        self.variants = combinations(options.variants)
        self.template = PromptTemplate(options.template) if options.template.strip() else None
        self.pattern = NamePattern(options.name_pattern) if options.name_pattern else None
        self.sku_pattern = NamePattern(default_pattern(options.variants))
        self.names = NameRegistry()
        self.hints = prompt_hints("template", options.template, {*(columns or ()), *options.variants})
        """Hints about the template, or about the first prompt that has any: syntax that is rendered as plain words."""
        self._used = self._used_columns()
        self.base_seed = self._check_defaults()
        self._template_s = 0.0
        self._bases: dict[Any, tuple[NewJob, RecipeHasher] | InvalidRequest] = {}
        if columns is not None:
            self._check_columns(columns)
        if options.seeds is SeedPolicy.FIXED and self.base_seed is None and "seed" not in (columns or ("seed",)):
            refuse("seeds", "fixed needs a seed", "send a seed, or choose row, sku or random")

    def _check_defaults(self) -> int | None:
        if not isinstance(self.options.defaults.get("subject", ""), str | dict):
            refuse("defaults.subject", "is not an object", 'send one like {"shadow": 0.4}, or the name of a photo')
        try:
            # an image's name becomes an id later
            fields = {name: value for name, value in self.options.defaults.items() if name not in IMAGE_FIELDS}
            return JobRequest.model_validate({**fields, "prompt": "x"}).seed
        except ValidationError as error:
            raise InvalidRequest([replace(e, field=f"defaults.{e.field}") for e in field_errors(error)]) from None

    def _check_columns(self, columns: tuple[str, ...]) -> None:
        options = self.options
        for name in options.variants:
            if name in columns:
                refuse("variants", f"{name!r} is a column as well", "give the variant another name, or take the column out")
        known = {*columns, *options.variants}
        if self.template is not None:
            self.template.check_names(known)
        elif "prompt" not in columns:
            refuse("template", "there is neither a template nor a column prompt", "send a template such as {{ name }} on white")
        for name in options.labels or ():
            if name not in known:
                refuse("labels", f"there is no column {name!r}", f"known: {', '.join(sorted(known))}")
        if self.pattern is not None:
            self.pattern.check_names(known)
        if options.seeds is SeedPolicy.SKU and "sku" not in columns:
            refuse("seeds", "sku needs a column sku", "add the column, or choose fixed, row or random")

    def _used_columns(self) -> frozenset[str]:
        """The columns whose values affect an image, its name or its labels."""
        used = {*RECIPE_COLUMNS, *IDENTITY_COLUMNS, *(self.options.labels or ())}
        used |= {"prompt"} if self.template is None else self.template.names
        return frozenset(used | set(self.pattern.fields if self.pattern is not None else ()))

    def jobs(self, row: Row) -> list[tuple[PlannedJob, NewJob]]:
        """The jobs of a row, one per variant, each with the base that it shares with other jobs.

        Raises RowExpansionError if any of them is invalid.
        """
        broken = {name: cell for name in row.cells.keys() & self._used if (cell := sheet_error(row.cells[name]))}
        if broken:
            name = min(broken)
            _raise_row_error(row, name, f"is {broken[name]}, an error of the spreadsheet", "correct the formula there")
        return [self._job(row, variant) for variant in self.variants]

    def _job(self, row: Row, variant: Mapping[str, Any]) -> tuple[PlannedJob, NewJob]:
        values = row.cells
        if variant:
            if both := row.cells.keys() & variant.keys():
                _raise_row_error(
                    row, min(both), "is a variant as well", "take it out of the rows, or give the variant another name"
                )
            values = {**row.cells, **variant}
        fields = {name: values[name] for name in values.keys() & RECIPE_COLUMNS}
        seed = fields.pop("seed", None)
        base, hasher = self._base(row, fields)
        try:
            varying = _Varying.model_validate(
                {
                    "prompt": self._prompt(row, values),
                    "seed": self._seed(row, variant) if seed is None else seed,
                    "labels": self._labels(values),
                    "custom_id": None if (custom := values.get("custom_id")) is None else str(custom),
                }
            )
        except ValidationError as error:
            raise RowExpansionError([replace(e, row=row.number) for e in field_errors(error)]) from None
        name = self._name(row, values, base, varying.seed)
        recipe_hash = hasher.recipe_hash(varying.prompt, varying.seed)
        job = PlannedJob(row.number, -1, varying.prompt, varying.seed, recipe_hash, varying.labels, varying.custom_id, name)
        return job, base

    def _prompt(self, row: Row, values: Mapping[str, Any]) -> str:
        if self.template is None:
            if "prompt" not in values:
                _raise_row_error(row, "prompt", "is empty", "write what the picture shows, or send a template")
            prompt = str(values["prompt"])
            if not self.hints:
                self.hints += (replace(hint, row=row.number) for hint in prompt_hints("prompt", prompt))
            return prompt
        start = time.perf_counter()
        try:
            return self.template.render(values)
        except RowTemplateError as error:
            known = ", ".join(sorted(values)) or "none"
            _raise_row_error(row, "template", str(error), f"fill in the cell, or use |default(''); this row has: {known}")
        finally:
            self._template_s += time.perf_counter() - start
            if self._template_s > TEMPLATE_SECONDS:
                refuse("template", f"took more than {TEMPLATE_SECONDS:.0f} s for this table", "make it simpler", row.number)

    def _seed(self, row: Row, variant: Mapping[str, Any]) -> int:
        sku = None if (cell := row.cells.get("sku")) is None else str(cell)
        policy = self.options.seeds
        if policy is None and self.base_seed is not None:
            policy = SeedPolicy.FIXED
        elif policy is None:
            policy = SeedPolicy.RANDOM if sku is None else SeedPolicy.SKU
        try:
            return choose_seed(policy, base=self.base_seed, row=row.number, sku=sku, variant=variant)
        except ValueError as error:
            _raise_row_error(row, "seed", str(error), "fill in the cell, or choose another seeds policy")

    def _labels(self, values: Mapping[str, Any]) -> dict[str, str]:
        names = self.options.variants if self.options.labels is None else self.options.labels
        return {name: str(values[name]) for name in ("sku", *names) if name in values}

    def _name(self, row: Row, values: Mapping[str, Any], base: NewJob, seed: int) -> str | None:
        pattern = self.pattern or (self.sku_pattern if "sku" in values else None)
        if pattern is None:
            # without a name the job id is used, which is not known yet
            name = sanitize(str(values.get("custom_id", "")))[: MAX_STEM_BYTES // 4]
            if not name:
                return None
        else:
            try:
                name = pattern.stem({**values, "row": row.number, "seed": seed, "model": base.model})
            except ValueError as error:
                _raise_row_error(row, "name_pattern", str(error), "fill in the cell, or change the name pattern")
        product = str(values.get("sku", values.get("custom_id", "")))
        if clash := self.names.clash(name, base.count, row.number, product):
            where = "another variant of this row" if clash.row == row.number else f"row {clash.row}"
            remedy = "make sku (or custom_id) unique, or tell the files apart: name_pattern with {row} or a variant"
            if product and not clash.same_product:
                where += ", whose sku differs only in case or in characters that a file name cannot have"
                remedy = "tell the files apart: name_pattern={sku}-{row}"
            _raise_row_error(row, "name_pattern", f"its file name {clash.stem!r} is taken by {where}", remedy)
        return name

    def _base(self, row: Row, fields: dict[str, Any]) -> tuple[NewJob, RecipeHasher]:
        """The base job of these recipe fields. It is cached, because most rows of a table share theirs."""
        key = tuple(sorted((name, type(value).__name__, repr(value)) for name, value in fields.items()))
        found = self._bases.get(key)
        if found is None:
            if len(self._bases) >= MAX_BASES:
                self._bases.clear()
            found = self._bases[key] = self._make_base(fields)
        if isinstance(found, InvalidRequest):
            raise RowExpansionError([replace(error, row=row.number) for error in found.errors])
        return found

    def _make_base(self, fields: dict[str, Any]) -> tuple[NewJob, RecipeHasher] | InvalidRequest:
        options = self.options
        whole = {**options.defaults, **fields, "priority": options.priority, "expires_in": options.expires_in}
        if isinstance(common := options.defaults.get("subject"), dict):
            whole["subject"] = _subject(common, fields.get("subject"))
        try:
            # placeholders for prompt and seed: the catalogue checks neither
            job = self.make_job({**whole, "prompt": "x", "seed": 0})
        except ValidationError as error:
            return InvalidRequest(field_errors(error))
        except InvalidRequest as error:
            return error
        return job, RecipeHasher(job.recipe)


def _subject(common: dict[str, Any], own: Any) -> Any:
    """A row's subject: the default subject with the row's own photo. Without any photo there is none."""
    if own is None:
        return common if "image" in common else None
    return {**common, **(own if isinstance(own, dict) else {"image": own})}


def field_errors(error: ValidationError) -> list[FieldError]:
    """Errors of pydantic as field errors."""
    return [
        FieldError(
            field=".".join(str(part) for part in item["loc"]) or "request",
            detail=item["msg"].removeprefix("Value error, "),
            remedy="correct it, or leave it out for the default",
        )
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _raise_row_error(row: Row, column: str, detail: str, remedy: str) -> NoReturn:
    raise RowExpansionError([FieldError(field=column, detail=detail, remedy=remedy, row=row.number)])


class RecipeHasher:
    """Hashes recipes that differ only in prompt and seed: holds their canonical JSON with a gap for each of the two."""

    def __init__(self, recipe: dict[str, Any]) -> None:
        prompt, seed = secrets.token_hex(16), secrets.token_hex(16)  # random, so that no recipe contains them
        text = canonical_json(recipe | {"prompt": prompt, "seed": seed})
        self.before, _, rest = text.partition(f'"{prompt}"')
        self.between, _, self.after = rest.partition(f'"{seed}"')

    def recipe_hash(self, prompt: str, seed: int) -> str:
        """`Recipe.recipe_hash` of the recipe with this prompt and seed."""
        text = f'{self.before}{JSON.encode(prompt)}{self.between}"{seed}"{self.after}'
        return hashlib.sha256(text.encode()).hexdigest()
