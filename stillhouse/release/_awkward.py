"""Texts that nobody wrote a model for, and every deployment meets: it must answer, and as it did at the gate."""

_WRITTEN = (
    "", " ", "   \t ", "\n", "\r\n\r\n", "\xa0\u2003\u3000", "\u200b", "\ufeff", "\x00", "\x01\x02\x1b[31m\x7f",
    "a", "?", "...", "!!!!!!!!!!!!!!!!!!!!", "-", "0", "42", "3.14159e-10", "#", "@", "''", '"', "\\",
    "%s %d {} {0}", "null", "None", "NaN", "true", "[CLS] [SEP] [MASK] [PAD] [UNK]", "<s></s><pad><unk><mask>",
    "<b>Bold</b> &amp; <a href='x'>link</a>", "<script>alert('x')</script>", "<!-- nothing -->",
    "'; DROP TABLE texts; --", "https://example.org/a/very/long/path?with=parameters&and=more#anchor",
    "someone@example.org www.example.org", "RT @someone: #hashtag #another :-) ;) :(",
    '{"json": ["in", "a", {"text": null}]}', "a,b;c\td|e", "\U0001f600",
    "\U0001f600\U0001f602\U0001f923 so good \U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f1eb\U0001f1f7 \u2764\ufe0f", "caf\xe9 na\xefve \xc5ngstr\xf6m", "cafe\u0301 in two code points",
    "Z\u0351\u036b\u0343a\u0329\u0324l\u0348\u0353g\u0321\u0332o\u033a\u0330",
    "\ufb01ne \u2460 \u210c \uff21\uff22\uff23", "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c", "\uc548\ub155\ud558\uc138\uc694",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "left \u202eright to left\u202c left",
    "\u0928\u092e\u0938\u094d\u0924\u0947", "mixed \u0441\u043a\u0440\u0438\u043f\u0442 \u6587\u5b57 text",
    "ALL CAPITALS AND VERY ANGRY", "l3375p34k", "word\xadbreak\u200dhere", "\ufffd\ufffd broken bytes \ufffd",
)  # fmt: skip


def awkward_texts() -> list[str]:
    """Empty, blank, huge, binary, right-to-left, mixed-script and marked-up texts; the same list every time."""
    return [
        *_WRITTEN,
        "a" * 5000,
        "word " * 2000,
        "\U0001f600" * 500,
        "\u4e16" * 3000,
        "x" * 500 + " " + "y " * 500,
        "line\n" * 300,
        "https://example.org/" + "a/" * 800,
    ]
