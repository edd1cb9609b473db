"""Introspection data, as the D-Bus specification defines it, from the tables in `interfaces`.

dbus-next's own data lacks the annotations that say which properties a client must poll. Nothing
needs escaping: names in the tables and labels of object paths contain no XML special characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remo_broker.bus.interfaces import Emits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from remo_broker.bus.interfaces import Argument, Interface, Property

_DOCTYPE = """<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
"""
_EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"


def document(interfaces: Iterable[Interface], children: Iterable[str] = (), *, texts: bool = False) -> str:
    """The reply of `Introspect` for an object with these interfaces and child nodes.

    `texts` adds descriptions.
    """
    lines = [_DOCTYPE + "<node>"]
    for interface in interfaces:
        lines += _interface(interface, texts)
    lines += [f'  <node name="{child}"/>' for child in children]
    return "\n".join([*lines, "</node>", ""])


def _interface(interface: Interface, texts: bool) -> Iterator[str]:
    yield f'  <interface name="{interface.name}">'
    for method in interface.methods:
        arguments = [*_arguments(method.takes, "in"), *_arguments(method.gives, "out")]
        yield from _element("method", method.name, arguments, method.text if texts else "")
    for signal in interface.signals:
        yield from _element("signal", signal.name, _arguments(signal.gives), signal.text if texts else "")
    for one in interface.properties:
        yield from _property(one, one.text if texts else "")
    yield "  </interface>"


def _element(kind: str, name: str, inside: Iterable[str], text: str) -> Iterator[str]:
    if text:
        yield f"    <!-- {text} -->"
    inside = list(inside)
    if not inside:
        yield f'    <{kind} name="{name}"/>'
        return
    yield f'    <{kind} name="{name}">'
    yield from inside
    yield f"    </{kind}>"


def _arguments(arguments: Iterable[Argument], direction: str = "") -> Iterator[str]:
    shown = f' direction="{direction}"' if direction else ""
    for argument in arguments:
        yield f'      <arg name="{argument.name}" type="{argument.signature}"{shown}/>'


def _property(one: Property, text: str) -> Iterator[str]:
    if text:
        yield f"    <!-- {text} -->"
    head = f'    <property name="{one.name}" type="{one.signature}" access="read"'
    if one.emits is Emits.TRUE:  # the default, omitted
        yield f"{head}/>"
        return
    yield f"{head}>"
    yield f'      <annotation name="{_EMITS}" value="{one.emits}"/>'
    yield "    </property>"
