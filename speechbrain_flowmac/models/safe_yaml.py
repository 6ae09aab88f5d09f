"""YAML that a stranger wrote, read without trust into nodes.

HyperPyYAML runs whatever a file asks for, also in plain strings that look like
tuples. A model needs little of it, so this reader knows scalars, lists, maps,

    !ref <key>, !ref <key[sub]>     the same value or object again
    !copy <key>                     another one, built in the same way
    !new:speechbrain_flowmac...     an object of the codec or the lobes

and refuses the rest, with the line. YAML's anchors and aliases are references.
What `!new` may name are the classes that `speechbrain_flowmac.codec`,
`dynamic_codec` and the modules of `lobes` define: a new lobe needs no entry.
"""

import importlib
import math
import re

import yaml

MAX_BYTES = 2**16
MAX_DEPTH = 50
# of values, each counted as often as references repeat it
MAX_VALUES = 10_000

MODULES = re.compile(r"speechbrain_flowmac\.((dynamic_)?codec|lobes\.[a-z]\w*)")
REFERENCE = re.compile(r"<[\w-]+(\[[\w-]+\]|\.[\w-]+)*>")
TUPLE = re.compile(r"\s*\(.*\)\s*", re.DOTALL)

YAML_TAG = "tag:yaml.org,2002:"
NEW_TAG = "!new:"
REF_TAG = "!ref"
COPY_TAG = "!copy"


class ModelError(ValueError):
    """A model folder that cannot be loaded."""


class UnsafeModelError(ModelError):
    """A YAML that asks for more than the codec's own classes, or too much."""


class InvalidModelError(ModelError):
    """A YAML that describes no model."""


def line_of(place):
    """How errors begin: file and line of a node, an event or a mark."""
    mark = getattr(place, "start_mark", place)
    return f"{mark.name}, line {mark.line + 1}: "


def is_new(node):
    """Whether a node is to be an object."""
    return node.tag.startswith(NEW_TAG)


def compose(text, name="YAML"):
    """Nodes of a YAML document; nothing is built.

    Arguments
    ---------
    text : bytes or str
        The document; bytes are UTF-8.
    name : str or Path
        What to call it in messages.

    Returns
    -------
    yaml.MappingNode
        All nodes below it are of a known kind: scalars, lists and maps of
        YAML's own types, references whose text is a path, and `!new:` of
        classes that are allowed. Paths may lead nowhere or in circles.
    """
    if len(text) > MAX_BYTES:
        raise UnsafeModelError(f"{name} has more than {MAX_BYTES} bytes")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        root = _Composer(text, str(name)).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidModelError(
            f"{line_of(mark)}not valid YAML: {error.problem}"
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidModelError(f"{name} is not valid YAML: {error}") from error
    if root is None or root.tag != YAML_TAG + "map":
        raise InvalidModelError(
            f"{name} must be a YAML map with the names of parts"
        )
    return root


def serialize(root):
    """The text of nodes, as `compose` reads it.

    Arguments
    ---------
    root : yaml.MappingNode
        The document.

    Returns
    -------
    str
    """
    return yaml.serialize(root, Dumper=_Serializer, allow_unicode=True)


def find_class(node):
    """The class that a `!new:` node asks for.

    Arguments
    ---------
    node : yaml.Node
        The node.

    Returns
    -------
    type
    """
    name = node.tag.removeprefix(NEW_TAG)
    module_name, _, class_name = name.rpartition(".")
    found = None
    if MODULES.fullmatch(module_name) and not class_name.startswith("_"):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError:
            module = None
        found = vars(module).get(class_name) if module else None
    # nor what those modules import from elsewhere
    if not isinstance(found, type) or not MODULES.fullmatch(found.__module__):
        raise UnsafeModelError(
            f"{line_of(node)}{name[:99]!r} is no class of the codec or its "
            "lobes"
        )
    return found


def scalar(node):
    """The value of a scalar node.

    Arguments
    ---------
    node : yaml.ScalarNode
        With one of the tags in `SCALARS`.

    Returns
    -------
    None, bool, int, float or str
    """
    if TUPLE.fullmatch(node.value):
        # HyperPyYAML would construct what is inside, so nobody means a string
        raise UnsafeModelError(f"{line_of(node)}a model may not use tuples")
    try:
        value = SCALARS[node.tag](node.value)
    except ValueError as error:
        raise InvalidModelError(f"{line_of(node)}{error}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidModelError(f"{line_of(node)}expected finite numbers")
    return value


SCALARS = {
    f"{YAML_TAG}null": lambda text: None,
    f"{YAML_TAG}bool": lambda text: text.lower() == "true",
    f"{YAML_TAG}int": int,
    # float() knows infinity without YAML's dot
    f"{YAML_TAG}float": lambda text: float(re.sub(r"\.(?=[a-zA-Z])", "", text)),
    f"{YAML_TAG}str": str,
}
# The core schema of YAML 1.2, as in HyperPyYAML: 1e-4 is a number, no is text.
# Tag, pattern, characters that it may begin with.
RESOLVERS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]{1,100}", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class _Composer(yaml.SafeLoader):
    """Makes nodes of text, and checks each."""

    yaml_implicit_resolvers = {}

    def __init__(self, text, name):
        super().__init__(text)
        self.name = name
        self.depth = self.values = 0

    def compose_node(self, parent, index):
        self.depth += 1
        self.values += 1
        if self.depth > MAX_DEPTH or self.values > MAX_VALUES:
            raise UnsafeModelError(
                f"{line_of(self.peek_event())}more than {MAX_VALUES} values "
                f"or {MAX_DEPTH} levels"
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_scalar_node(self, anchor):
        node = super().compose_scalar_node(anchor)
        if node.tag in SCALARS:
            scalar(node)
        elif node.tag in (REF_TAG, COPY_TAG):
            if not REFERENCE.fullmatch(node.value):
                raise UnsafeModelError(
                    f"{line_of(node)}{node.tag} takes <key> or <key[sub]>, "
                    f"found {node.value[:40]!r}"
                )
        else:
            # an object without arguments
            self._check_tag(node, None if node.value else NEW_TAG)
        return node

    def compose_sequence_node(self, anchor):
        node = super().compose_sequence_node(anchor)
        self._check_tag(node, YAML_TAG + "seq")
        return node

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        self._check_tag(node, YAML_TAG + "map")
        seen = set()
        for key, _ in node.value:
            if key.tag != YAML_TAG + "str":
                raise UnsafeModelError(f"{line_of(key)}a key must be a name")
            if key.value in seen:
                raise InvalidModelError(
                    f"{line_of(key)}{key.value!r} is there twice"
                )
            seen.add(key.value)
        return node

    def _check_tag(self, node, plain):
        """Refuses nodes that are neither of the plain tag nor objects."""
        if plain is not None and is_new(node):
            find_class(node)
        elif node.tag != plain:
            tag = node.tag.replace(YAML_TAG, "!!")[:99]
            raise UnsafeModelError(
                f"{line_of(node)}a model may not use {tag}, only !ref, !copy "
                "and !new of the codec's own classes"
            )


for _kind, _pattern, _first in RESOLVERS:
    _Composer.add_implicit_resolver(
        YAML_TAG + _kind, re.compile(f"(?:{_pattern})$"), _first
    )


class _Serializer(yaml.SafeDumper):
    yaml_implicit_resolvers = _Composer.yaml_implicit_resolvers
