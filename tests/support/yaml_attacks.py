"""What a stranger may append to the YAML of a model folder.

MARKER is a file that must not come to be; TUPLE is a string which HyperPyYAML
takes for a tuple, whose inside it constructs without limits.
"""

TUPLE = '(!!python/object/apply:os.system ["touch MARKER"])'
CODEC = "speechbrain_flowmac.codec"
LOBES = "speechbrain_flowmac.lobes"

# by explicit tags
TAGS = {
    "apply": "!apply:os.system ['touch MARKER']",
    "apply, then a comment": "!apply:os.system ['touch MARKER']  # !ref",
    "applyref": "!applyref:os.system ['touch MARKER']",
    "new of any class": "!new:subprocess.Popen [[touch, MARKER]]",
    "name": "!name:os.system",
    "name with arguments": "!name:os.system {command: touch MARKER}",
    "module": "!module:antigravity",
    "include": "!include:other.yaml",
    "placeholder": "!PLACEHOLDER",
    "python/object/apply": ("!!python/object/apply:os.system ['touch MARKER']"),
    "python/object/new": ("!!python/object/new:os.system ['touch MARKER']"),
    "python/name": "!!python/name:os.system",
    "python/module": "!!python/module:antigravity",
    "python/tuple": "!!python/tuple [1, 2]",
    "verbatim tag": "!<!apply:os.system> ['touch MARKER']",
    "verbatim Python tag": (
        "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch MARKER']"
    ),
    "escaped tag": "!%61pply:os.system ['touch MARKER']",
    "deep below": "[{deep: !apply:os.system ['touch MARKER']}]",
    "!tuple itself": f"!tuple '{TUPLE}'",
    "set": "!!set {a, b}",
    "binary": "!!binary aGVsbG8=",
}

# by names that lead out of the codec and the lobes
NAMES = {
    "attribute of a module": f"!new:{CODEC}.torch.hub.load ['touch MARKER']",
    "module of a module": f"!new:{LOBES}.features.torch.nn.Linear [2, 2]",
    "class of another package": f"!new:{CODEC}.Tensor []",
    "another part of the package": (
        "!new:speechbrain_flowmac.inference.Path [MARKER]"
    ),
    "function": f"!new:{LOBES}.features.num_frames [2, 1]",
    "method": f"!new:{LOBES}.features.MelSettings.check_same []",
    "private class": f"!new:{LOBES}.losses._LogMelDifference []",
    "module": f"!new:{LOBES}.features []",
    "no such module": f"!new:{LOBES}.nothing.Nothing []",
    "package above": f"!new:{LOBES}..inference.Path [MARKER]",
    "no name": "!new: []",
    "scalar argument": f"!new:{LOBES}.solvers.Euler 1",
}

# by strings that look like tuples
TUPLES = {
    "plain": TUPLE,
    "single quotes": f"'{TUPLE}'",
    "double quotes": '"(!!python/object/apply:os.system [touch MARKER])"',
    "literal block": f"|-\n    {TUPLE}",
    "folded block": f">-\n    {TUPLE}",
    "in a list": f"\n    - '{TUPLE}'",
    "in a flow list": f"[1, '{TUPLE}']",
    "in a map": f"\n    deep: '{TUPLE}'",
    "as a key": f"\n    ? {TUPLE}\n    : 1",
    "as a quoted key": f"\n    '{TUPLE}': 1",
    "as an argument": f"!new:{LOBES}.solvers.Sway\n    - '{TUPLE}'",
    "as a named argument": (
        f"!new:{LOBES}.solvers.Sway\n    coefficient: '{TUPLE}'"
    ),
    "as a str": f"!!str '{TUPLE}'",
    "unspecific tag": f"! '{TUPLE}'",
    "by an alias": f"[&a '{TUPLE}', *a]",
    "copy": f"!copy {TUPLE}",
    "harmless": "(1, 2)",
}

# by what references make; more keys follow
REFERENCES = {
    "pieces": (
        "!ref <piece>tem ['touch MARKER'])\n"
        "piece: '(!!python/object/apply:os.sys'"
    ),
    "copied pieces": (
        "!copy <piece>tem ['touch MARKER'])\n"
        "piece: '(!!python/object/apply:os.sys'"
    ),
    "two pieces": (
        "!ref <piece><other>\npiece: '(!!python/object/apply:os.system '\n"
        "other: \"['touch MARKER'])\""
    ),
    "tuple around a reference": (
        "!ref (!!python/object/apply:os.system ['<piece>'])\n"
        "piece: touch MARKER"
    ),
    "attribute": "!ref <codec.__class__>",
    "attribute of an attribute": "!ref <codec.forward.__globals__>",
    "arithmetic": "!ref <nine> + 1\nnine: 9",
    "division by nothing": "!ref <nine> / 0\nnine: 9",
    "text around": "!ref <nine>/weights\nnine: 9",
    "no key": "!ref nine\nnine: 9",
    "unknown key": "!ref <ten>",
    "reference to a list's item": "!ref <nine[0]>\nnine: [9]",
    "reference with parts": "!ref {a: <nine>}\nnine: 9",
}

ATTACKS = {
    f"{group}: {name}": f"extra: {text}\n"
    for group, texts in {
        "tag": TAGS,
        "name": NAMES,
        "tuple": TUPLES,
        "reference": REFERENCES,
    }.items()
    for name, text in texts.items()
}
ATTACKS["tuple: as a key at the top"] = f"? {TUPLE}\n: 1\n"
ATTACKS["tuple: as a quoted key at the top"] = f"'{TUPLE}': 1\n"
ATTACKS["key: number"] = "extra: {1: 2}\n"
ATTACKS["key: list"] = "extra: {[1]: 2}\n"
ATTACKS["key: reference"] = "extra: {!ref <codec>: 2}\n"

# Tags under other names, which only work at the head of a document
HEADS = {
    "named handle": "%TAG !x! !apply:\n---\nextra: !x!os.system ['touch MARKER']\n",
    "primary handle": "%TAG ! !apply:\n---\nextra: !os.system ['touch MARKER']\n",
    "secondary handle": (
        "%TAG !! !apply:\n---\nextra: !!os.system ['touch MARKER']\n"
    ),
    "second document": (
        "codec: 1\n---\nextra: !apply:os.system ['touch MARKER']\n"
    ),
}


def _nested(first, again, levels=30):
    """Levels that repeat the one below them ten times."""
    lines = [first.format(0)]
    for level in range(1, levels):
        repeats = ", ".join([again.format(level - 1)] * 10)
        lines.append(f"level{level}: &level{level} [{repeats}]")
    return "\n".join(lines) + "\n"


_FIRST = "level{0}: &level{0} [x]"

# What takes time or memory without end
BOMBS = {
    "nested aliases": _nested(_FIRST, "*level{0}"),
    "nested references": _nested(_FIRST, "!ref <level{0}>"),
    "nested copies": _nested(_FIRST, "!copy <level{0}>"),
    "copies of aliases": _nested(_FIRST, "*level{0}")
    + "extra: !copy <level29>\n",
    "nested objects": _nested(
        "level{0}: &level{0} !new:" + f"{LOBES}.solvers.Euler []",
        "!copy <level{0}>",
    ),
    "alias of itself": "extra: &a [*a]\n",
    "map of itself": "extra: &a {b: *a}\n",
    "reference to itself": "extra: !ref <extra>\n",
    "reference around": "extra: !ref <other>\nother: [!ref <extra>]\n",
    "copy of itself": "extra: [!copy <extra>, !copy <extra>]\n",
    "chain of references": "".join(
        f"a{i}: [!ref <a{i + 1}>]\n" for i in range(1500)
    )
    + "a1500: 1\n",
    "powers": "nine: 9\nextra: !ref <nine> ** <nine> ** <nine>\n",
    "repeated text": "extra: !ref \"'<text>' * 9 ** 10\"\ntext: ha\n",
    "30 MB": "extra: " + "x" * 30_000_000 + "\n",
    "30 MB of keys": "".join(f"key{i}: 1\n" for i in range(2_500_000)),
    "brackets": "extra: " + "[" * 20_000 + "]" * 20_000 + "\n",
    "braces": "extra: " + "{a: " * 10_000 + "}" * 10_000 + "\n",
    "dashes": "extra:\n  " + "- " * 20_000 + "1\n",
    "question marks": "? " * 20_000 + "1\n",
    "many values": "extra: [" + "1, " * 20_000 + "]\n",
    "digits": "extra: " + "9" * 60_000 + "\n",
    "exponent": "extra: 1e999999999\n",
    "infinite": "extra: .inf\n",
    "long tag": "extra: !new:" + "a." * 30_000 + " []\n",
    "long reference": "extra: !ref <" + "a." * 30_000 + "a>\n",
    "open reference": "extra: !ref <" + "a[" * 30_000 + "\n",
    "parentheses": "extra: '" + "(" * 30_000 + ")" * 30_000 + "'\n",
}
