"""What Jinja2 does for each value on a page of Trac, in fewer steps. Imported only once Trac is.

A value takes a function of Trac that makes nothing of None and one that escapes, a call is looked through
for who wants to know the context, and each field of a row is first looked for among the methods of the row.
A page has some thousand of these.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Optional

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.environment import Environment
from jinja2.runtime import Context
from jinja2.utils import internalcode
from markupsafe import Markup, escape
from trac.web import chrome

#: Jinja2 also asks the __call__ of what it calls. That of these is Python's own.
_PLAIN = frozenset((FunctionType, MethodType, BuiltinFunctionType, partial))
#: Which a template means where it asks a row for one of them.
_METHODS = frozenset(dir(dict))
#: Trac's function that makes nothing of None, as compiled templates call it.
_FINALIZE = "environment.finalize("
_OF_TRAC = "jinja2env.<locals>.filterout_none"


def accelerate() -> None:
    """Have the templates of pages compiled and evaluated like this in this process."""
    make = getattr(chrome, "jinja2env", None)
    if make is not None:
        chrome.jinja2env = lambda *args, **kwargs: accelerated(make(*args, **kwargs))


def accelerated(jenv: Any) -> Any:
    """The environment of Jinja2 that was given."""
    if type(jenv) is not Environment or hasattr(jinja2, "contextfunction"):
        return jenv  # 3.0 has other ways yet to tell who wants to know the context
    made: Any = jenv
    made.getattr = _getter(made.getattr)
    if made.context_class is Context:
        made.context_class = _Context
    own = getattr(made.finalize, "__qualname__", "") == _OF_TRAC
    if own and made.code_generator_class is CodeGenerator:
        made.output = _writer(made.finalize)
        made.code_generator_class = _CodeGenerator
    return made


def _getter(get: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    def getattr(value: Any, name: str) -> Any:
        if type(value) is dict and name in value and name not in _METHODS:
            return value[name]
        return get(value, name)

    return getattr


def _writer(finalize: Callable[[Any], Any]) -> Callable[[Any], str]:
    def output(value: Any) -> str:
        if type(value) is Markup:
            return value
        return escape(value if type(value) is str else finalize(value))

    return output


class _Context(Context):
    @internalcode
    def call(__self, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        if type(__obj) not in _PLAIN or hasattr(__obj, "jinja_pass_arg"):
            return super().call(__obj, *args, **kwargs)
        kwargs.pop("_block_vars", None)
        kwargs.pop("_loop_vars", None)
        try:
            return __obj(*args, **kwargs)
        except StopIteration:
            return super().call(_stop)


def _stop() -> None:
    raise StopIteration


class _CodeGenerator(CodeGenerator):
    """One step for all that stands between two statements of a template, and one for each value in it."""

    def visit_Output(self, node: nodes.Output, frame: Any) -> None:
        if frame.buffer is not None or frame.require_output_check or len(node.nodes) < 2:
            super().visit_Output(node, frame)
            return
        finalize = self._make_finalize()
        self.writeline("yield ''.join((")
        self.indent()
        for child in node.nodes:
            text = self._constant(child, frame, finalize)
            if text is not None:
                self.writeline(f"{self._output_const_repr([text])},")
            else:
                self.newline(child)
                self._output_child_pre(child, frame, finalize)
                self.visit(child, frame)
                self._output_child_post(child, frame, finalize)
                self.write(",")
        self.outdent()
        self.writeline("))")

    def _constant(self, node: nodes.Expr, frame: Any, finalize: Any) -> Optional[str]:
        """As in Jinja2's own way, where a constant is made into text differently from a value."""
        if not finalize.const and not isinstance(node, nodes.TemplateData):
            return None
        try:
            return self._output_child_to_const(node, frame, finalize)
        except Exception:  # as there: it shows once the page is made
            return None

    def _output_child_pre(self, node: nodes.Expr, frame: Any, finalize: Any) -> None:
        if self._in_one_step(frame, finalize):
            self.write("environment.output(")
        else:
            super()._output_child_pre(node, frame, finalize)

    def _output_child_post(self, node: nodes.Expr, frame: Any, finalize: Any) -> None:
        if self._in_one_step(frame, finalize):
            self.write(")")
        else:
            super()._output_child_post(node, frame, finalize)

    def _in_one_step(self, frame: Any, finalize: Any) -> bool:
        escaped: bool = frame.eval_ctx.autoescape and not frame.eval_ctx.volatile
        return escaped and finalize.src == _FINALIZE
