"""A module that is sent smaller is the same program."""

import pytest

from api.console.squeeze import squeezed


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("const a = 1, b = [ 2, 3 ];  // why\n", "const a=1,b=[2,3];"),
        ("/** What\n * it is. */\nexport const f = (x) => x;\n", "export const f=(x)=>x;"),
        ('import { a } from "./a.js";\nimport b from "./b.js";', 'import{a}from"./a.js";import b from"./b.js";'),
        ("let a = b\nlet c = a\n  + b", "let a=b\nlet c=a\n+b"),
        ("if (a) {\n  b();\n}\nelse c()", "if(a){b();}\nelse c()"),
        ("a\n  .then(b)\n  .then(c);", "a.then(b).then(c);"),
        ("return a in b ? typeof c : - - d + + e", "return a in b?typeof c:- -d+ +e"),
    ],
)
def test_comments_and_blanks_go_and_what_ends_a_statement_stays(code: str, wanted: str) -> None:
    assert squeezed(code) == wanted + "\n"


@pytest.mark.parametrize(
    "code",
    [
        "a=\"// no  comment\";b='it\\'s  /* text */';",
        'a=/[/ ]  \\/ *"/g.test(b);',
        "c=(a+b)/2/ /x y/.exec(d).index;",
        "t=`a  b // c ${d}  e ${f({g:`h  ${i}  j`})}  k`;",
        "t=`costs $5 \\` and \\${nothing}  ${a?{b:1}.b:`}`}`;",
    ],
)
def test_what_is_text_stays_as_it_is(code: str) -> None:
    assert squeezed(code) == code + "\n"


def test_a_template_loses_its_indentation() -> None:
    assert squeezed("x = html`<p>\n    <b>${ a }</b>\n  </p>`;") == "x=html`<p>\n<b>${a}</b>\n</p>`;\n"
