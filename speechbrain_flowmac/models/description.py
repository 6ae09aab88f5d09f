"""What a model folder's YAML describes: changed by its user, then built."""

import copy
import re
from collections.abc import Mapping

import yaml
from hyperpyyaml import load_hyperpyyaml

from speechbrain_flowmac.models.safe_yaml import (
    COPY_TAG,
    MAX_DEPTH,
    MAX_VALUES,
    REF_TAG,
    YAML_TAG,
    InvalidModelError,
    UnsafeModelError,
    compose,
    find_class,
    is_new,
    line_of,
    scalar,
    serialize,
)

# tag of values that are not the file's but its user's
GIVEN_TAG = "given"


def _part(node, name):
    """The node of a key; None if there is none, or no keys."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return value
    return None


def _put(node, name, value):
    """Sets a key, where it stands or at the end."""
    names = [key.value for key, _ in node.value]
    index = names.index(name) if name in names else len(names)
    key = yaml.ScalarNode(YAML_TAG + "str", name, value.start_mark)
    node.value[index : index + 1] = [(key, value)]


class ModelDescription:
    """A model's YAML, read as data.

    Arguments
    ---------
    text : bytes or str
        The document; bytes are UTF-8.
    name : str or Path
        What to call it in messages.

    Example
    -------
    >>> model = ModelDescription('''
    ... sizes: {dim: 4}
    ... trunk: !new:speechbrain_flowmac.lobes.convnext.ConvNeXt
    ...     dim: !ref <sizes[dim]>
    ...     num_layers: 1
    ... ''')
    >>> model.override({"sizes": {"dim": 8}})
    >>> model.build()["trunk"].dim
    8
    """

    def __init__(self, text, name="YAML"):
        self._root = compose(text, name)

    def refuse(self, names):
        """Refuses keys at the top that are not a model's to set.

        Arguments
        ---------
        names : collection of str
            The keys.
        """
        for key, _ in self._root.value:
            if key.value in names:
                raise UnsafeModelError(
                    f"{line_of(key)}a model may not set {key.value!r}"
                )

    def lift(self, owner, name):
        """Makes a part of an object a key at the top, unless there is one.

        Arguments
        ---------
        owner, name : str
            Key of the object, and name of its argument.
        """
        parent = _part(self._root, owner)
        part = _part(parent, name)
        if part is None or _part(self._root, name) is not None:
            return
        reference = yaml.ScalarNode(REF_TAG, f"<{name}>", part.start_mark)
        _put(parent, name, reference)
        _put(self._root, name, part)

    def override(self, overrides, must_match=True):
        """Changes values. The user is trusted, unlike the file.

        Arguments
        ---------
        overrides : dict or str or None
            Nested like the file: a dict of any values, or HyperPyYAML.
        must_match : bool
            Whether keys at the top must be in the file; KeyError otherwise.
        """
        overrides = overrides or {}
        if isinstance(overrides, str):
            overrides = load_hyperpyyaml(overrides)
        known = [key.value for key, _ in self._root.value]
        unknown = [name for name in overrides if name not in known]
        if must_match and unknown:
            raise KeyError(f"overrides {unknown}, but the model has {known}")
        self._merge(self._root, overrides)

    def _merge(self, node, values):
        for name, value in values.items():
            old = _part(node, name)
            for _ in range(MAX_DEPTH):
                if old is not None and old.tag == REF_TAG:
                    old = self._target(old)
            if old is not None and is_new(old) and not old.value:
                # no arguments so far
                old = yaml.MappingNode(old.tag, [], old.start_mark)
                _put(node, name, old)
            if isinstance(value, Mapping) and isinstance(old, yaml.MappingNode):
                self._merge(old, value)
            else:
                mark = node.start_mark
                _put(node, name, yaml.ScalarNode(GIVEN_TAG, value, mark))

    def build(self):
        """Builds all of it.

        Returns
        -------
        dict
            Values and objects by the keys of the file.
        """
        self._num_values = 0
        self._check_size(self._root, depth=0)
        self._built = {}
        return self._shared(self._root, self._built)

    def to_yaml(self, name):
        """Writes one part, with what it refers to.

        Arguments
        ---------
        name : str
            Its key.

        Returns
        -------
        str
        """
        part = _part(self._root, name)
        if part is None:
            raise InvalidModelError(
                f"{self._root.start_mark.name} has no {name}"
            )
        self._num_values = 0
        self._check_size(part, depth=0)
        root = yaml.MappingNode(YAML_TAG + "map", [])
        root.start_mark = part.start_mark
        _put(root, name, self._resolved(part, {}))
        return serialize(root)

    def _resolved(self, node, done):
        """A node with the targets of references in their place."""
        if node.tag == REF_TAG:
            return self._resolved(self._target(node), done)
        if node.tag == COPY_TAG:
            return self._resolved(copy.deepcopy(self._target(node)), done)
        if id(node) not in done:
            if isinstance(node, yaml.MappingNode):
                value = [(k, self._resolved(v, done)) for k, v in node.value]
            elif isinstance(node, yaml.SequenceNode):
                value = [self._resolved(item, done) for item in node.value]
            else:
                value = node.value
            new = type(node)(node.tag, value, node.start_mark)
            if not is_new(node) and isinstance(node, yaml.ScalarNode):
                # needs no anchor
                return new
            done[id(node)] = node, new
        return done[id(node)][1]

    def _target(self, node):
        """The node that a reference names."""
        target = self._root
        for name in re.findall(r"[\w-]+", node.value):
            target = _part(target, name)
        if target is None:
            raise InvalidModelError(
                f"{line_of(node)}{node.tag} {node.value[:40]} leads nowhere"
            )
        return target

    def _check_size(self, node, depth):
        """Goes where building would go, and says where that is too far."""
        self._num_values += 1
        if self._num_values > MAX_VALUES or depth > MAX_DEPTH:
            raise UnsafeModelError(
                f"{line_of(node)}references make more than {MAX_VALUES} "
                f"values or {MAX_DEPTH} levels, or go in circles"
            )
        children = []
        if node.tag in (REF_TAG, COPY_TAG):
            children = [self._target(node)]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [value for _, value in node.value]
        for child in children:
            self._check_size(child, depth + 1)

    def _shared(self, node, built):
        """The value of a node, the same each time that it is asked for."""
        if id(node) not in built:
            # the node as well, since a copy's has no other owner
            built[id(node)] = node, self._value(node, built)
        return built[id(node)][1]

    def _value(self, node, built):
        if node.tag == GIVEN_TAG:
            return node.value
        if node.tag == REF_TAG:
            return self._shared(self._target(node), self._built)
        if node.tag == COPY_TAG:
            return self._shared(copy.deepcopy(self._target(node)), built)
        if isinstance(node, yaml.MappingNode):
            value = {k.value: self._shared(v, built) for k, v in node.value}
        elif isinstance(node, yaml.SequenceNode):
            value = [self._shared(item, built) for item in node.value]
        else:
            value = [] if is_new(node) else scalar(node)
        return self._object(node, value) if is_new(node) else value

    def _object(self, node, arguments):
        found = find_class(node)
        try:
            if isinstance(arguments, dict):
                return found(**arguments)
            return found(*arguments)
        # a stranger's arguments may make it raise anything
        except Exception as error:
            raise InvalidModelError(
                f"{line_of(node)}{found.__name__}: {error}"
            ) from error
