"""The setting ``AIRISK_OAUTH``: it is read on every use, and everything that is wrong with it is noticed."""

import subprocess
import sys
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured

import airisk_oauth
from airisk_oauth import conf
from airisk_oauth.client import async_client, sessions
from airisk_oauth.conf import aliases, deployment, is_userid, problems
from airisk_oauth.models import AIRiskIdentity
from airisk_oauth.oauth.deployment import Deployment
from airisk_oauth.rules import RULES
from airisk_oauth.userids import from_identity, userid_of

if TYPE_CHECKING:
    from pytest_django import Settings

REQUIRED = {
    "BASE_URL": "https://demo.aicrisk.com",
    "CLIENT_ID": "client-1",
    "CLIENT_SECRET": "canary-secret",
    "REDIRECT_URI": "https://app.example.com/airisk/callback/",
}
REMOTE_HTTP = "http://airisk.internal/tenant"


def resolve(user: object, alias: str) -> Any:
    """Return the user, or what it returns when called; a site's own ``USERID``."""
    return user(alias) if callable(user) else user


not_callable = "a string"


def problems_with(settings: "Settings", **changes: Any) -> list[conf.Problem]:
    """Return the problems of a deployment with the required options and these changes."""
    settings.AIRISK_OAUTH = {"default": {**REQUIRED, **changes}}
    return list(problems())


def assert_refused(settings: "Settings", wrong: Any, number: int, *words: str) -> None:
    """Check that there is one problem with a hint, and that using the deployment reports the same."""
    settings.AIRISK_OAUTH = wrong
    [problem] = problems()
    assert problem.number == number
    assert problem.hint
    assert all(word in f"{problem.message} {problem.hint}" for word in words)
    assert "canary" not in str(problem)
    with pytest.raises(ImproperlyConfigured) as raised:
        deployment()
    assert problem.message in str(raised.value)


def shown(value: object) -> str:
    return getattr(value, "__name__", None) or ascii(value)[:40]


# Good settings


def test_deployment_has_documented_defaults(settings: "Settings") -> None:
    assert problems_with(settings) == []
    assert deployment() == Deployment(
        alias="default",
        base_url="https://demo.aicrisk.com",
        client_id="client-1",
        client_secret="canary-secret",
        redirect_uri="https://app.example.com/airisk/callback/",
        authorize_path="/api/oauth2",
        token_path="/api/oauth2/Token",
        userid="airisk_oauth.userids.from_identity",
        silent_renewal=True,
        code_from="browser",
        renew_before=300,
        renew_unused_for=30,
        timeout=(5, 10),
        api_timeout=(5, 30),
        extra_authorize_params={},
        extra_token_params={},
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("BASE_URL", "https://demo.aicrisk.com:8443/a/b"),
        ("BASE_URL", "http://127.0.0.1:8000"),
        ("BASE_URL", "http://[::1]"),
        ("BASE_URL", "http://localhost/"),
        ("BASE_URL", "http://airisk.localhost"),
        ("CLIENT_ID", "a b"),
        ("REDIRECT_URI", "http://localhost:8000/airisk/callback/"),
        ("AUTHORIZE_PATH", "/authorize"),
        ("TOKEN_PATH", "/"),
        ("USERID", "tests.test_conf.resolve"),
        ("SILENT_RENEWAL", False),
        ("CODE_FROM", "server"),
        ("CODE_FROM", "browser"),
        ("RENEW_BEFORE", 0),
        ("RENEW_UNUSED_FOR", 0),
        ("TIMEOUT", (0.5, 60)),
        ("API_TIMEOUT", (1, 1.5)),
        ("EXTRA_AUTHORIZE_PARAMS", {"response_type": "code"}),
        ("EXTRA_TOKEN_PARAMS", {"grant_type": "authorization_code", "state": ""}),
    ],
)
def test_each_option_is_used_as_given(settings: "Settings", key: str, value: object) -> None:
    assert problems_with(settings, **{key: value}) == []
    expected = value.rstrip("/") if key == "BASE_URL" else value  # type: ignore[attr-defined]
    assert getattr(deployment(), key.lower()) == expected


@pytest.mark.parametrize("base_url", ["https://demo.aicrisk.com/tenant", "https://demo.aicrisk.com/tenant//"])
def test_paths_are_appended_to_base_url(settings: "Settings", base_url: str) -> None:
    assert problems_with(settings, BASE_URL=base_url) == []
    assert deployment().authorize_url == "https://demo.aicrisk.com/tenant/api/oauth2"
    assert deployment().token_url == "https://demo.aicrisk.com/tenant/api/oauth2/Token"
    assert deployment().origin == ("https", "demo.aicrisk.com", 443)


def test_deployments_are_found_by_alias(settings: "Settings") -> None:
    settings.AIRISK_OAUTH = {"b_2": {**REQUIRED, "CLIENT_ID": "two"}, "A-1": {**REQUIRED, "CLIENT_ID": "one"}}
    assert aliases() == ["b_2", "A-1"]
    assert (deployment("b_2").client_id, deployment("A-1").client_id) == ("two", "one")
    with pytest.raises(ImproperlyConfigured, match="'default'"):
        deployment()


def test_problem_of_one_deployment_spares_others(settings: "Settings") -> None:
    settings.AIRISK_OAUTH = {"default": REQUIRED, "second": {**REQUIRED, "TIMEOUT": 5}, "third": {}}
    assert deployment().alias == "default"
    assert [problem.number for problem in problems()] == [5, 4, 4, 4, 4]
    with pytest.raises(ImproperlyConfigured, match="TIMEOUT"):
        deployment("second")


def test_settings_are_read_on_every_use(settings: "Settings") -> None:
    before = deployment()
    settings.AIRISK_OAUTH = {"default": {**REQUIRED, "CLIENT_ID": "another"}}
    assert deployment().client_id == "another" != before.client_id
    settings.AIRISK_OAUTH["default"]["CLIENT_ID"] = "a third"
    assert deployment().client_id == "a third"


def test_repr_of_deployment_hides_its_secret(settings: "Settings") -> None:
    assert problems_with(settings) == []
    assert "canary" not in repr(deployment())
    assert "canary" not in repr(vars(deployment()))
    assert deployment().client_secret == "canary-secret"
    by_hand = Deployment(alias="a", base_url="b", client_id="c", client_secret="canary-secret", redirect_uri="r")
    assert "canary" not in repr(by_hand)


# Wrong settings


@pytest.mark.parametrize("wrong", [None, {}, [], "https://demo.aicrisk.com", [("default", REQUIRED)]], ids=repr)
def test_setting_must_contain_deployments(settings: "Settings", wrong: object) -> None:
    settings.AIRISK_OAUTH = wrong
    [problem] = problems()
    assert (problem.number, bool(problem.hint)) == (1, True)
    for use in (deployment, aliases):
        with pytest.raises(ImproperlyConfigured, match="AIRISK_OAUTH must be"):
            use()


def test_missing_setting_is_a_problem(settings: "Settings") -> None:
    del settings.AIRISK_OAUTH
    assert [problem.number for problem in problems()] == [1]
    with pytest.raises(ImproperlyConfigured, match="AIRISK_OAUTH must be"):
        deployment()


@pytest.mark.parametrize("options", [None, "https://demo.aicrisk.com", [*REQUIRED]], ids=repr)
def test_deployment_must_be_a_dictionary(settings: "Settings", options: object) -> None:
    assert_refused(settings, {"default": options}, 1, "AIRISK_OAUTH['default']", "BASE_URL")


@pytest.mark.parametrize("alias", ["", "a b", "a/b", "ä", "a\n", "x" * 65, 1, None, ("a",)], ids=repr)
def test_alias_must_fit_into_a_url(settings: "Settings", alias: Any) -> None:
    settings.AIRISK_OAUTH = {alias: REQUIRED}
    assert [problem.number for problem in problems()] == [2]
    with pytest.raises(ImproperlyConfigured, match="alias"):
        deployment(alias)


@pytest.mark.parametrize("key", ["base_url", "CLIENT", "VERIFY", "", 7])
def test_unknown_key_is_a_problem(settings: "Settings", key: Any) -> None:
    assert_refused(settings, {"default": {**REQUIRED, key: "canary"}}, 3, repr(key), "RENEW_UNUSED_FOR")


@pytest.mark.parametrize("key", REQUIRED)
def test_missing_key_is_a_problem(settings: "Settings", key: str) -> None:
    rest = {name: value for name, value in REQUIRED.items() if name != key}
    assert_refused(settings, {"default": rest}, 4, f"has no {key}.")


BAD_TEXT: list[Any] = [None, "", " ", " a", "a ", "a\n", "a\0b", b"a", 7]
BAD_URL: list[Any] = [
    None,
    "",
    7,
    b"https://demo.aicrisk.com",
    "demo.aicrisk.com",
    "//demo.aicrisk.com",
    "/path",
    "ftp://demo.aicrisk.com",
    "javascript:alert(1)",
    "https://",
    "https:///path",
    "https://[",
    "https://demo.aicrisk.com:port",
    "https://demo.aicrisk.com:70000",
    "https://canary@demo.aicrisk.com",
    "https://canary:canary@demo.aicrisk.com",
    "https://demo.aicrisk.com?x=1",
    "https://demo.aicrisk.com?",
    "https://demo.aicrisk.com#x",
    "https://demo.aicrisk.com/a b",
    "https://demo.aicrisk.com\\a",
    "https://demo.aicrisk.com/\n",
    " https://demo.aicrisk.com",
    "https://dèmo.aicrisk.com",
    "https://.aicrisk.com",
    "https://*.aicrisk.com",
    "http://demo.aicrisk.com",
    "http://localhost.evil.example",
    "http://127.0.0.1.evil.example",
    "http://192.168.0.1",
    "http://0.0.0.0",
]
BAD_PATH: list[Any] = [None, "", "api", "//evil.example/api", "https://evil.example/", "/a?b", "/a#b", "/a\n", 7]
BAD_COUNT: list[Any] = [None, -1, 1.5, True, "300", 10**20]
BAD_TIMEOUTS: list[Any] = [
    None,
    5,
    [5, 10],
    (5,),
    (5, 10, 15),
    (0, 10),
    (5, -1),
    (5, None),
    (True, 10),
    ("5", 10),
    (5, float("inf")),
    (5, 1e300),
    (5, float("nan")),
]
BAD_DOTTED: list[Any] = [
    None,
    7,
    "",
    "resolve",
    "no_such_module.resolve",
    "tests.test_conf.no_such_name",
    "tests.test_conf.not_callable",
    ".relative.resolve",
    "..resolve",
    ".resolve",
    b"tests.test_conf.resolve",
    resolve,
]
BAD_EXTRAS: list[Any] = [None, "a=b", [("a", "b")], {"a": 1}, {1: "a"}, {"a": None}]
BAD_VALUES: dict[str, list[Any]] = {
    "BASE_URL": BAD_URL,
    "CLIENT_ID": BAD_TEXT,
    "CLIENT_SECRET": BAD_TEXT,
    "REDIRECT_URI": BAD_URL,
    "AUTHORIZE_PATH": BAD_PATH,
    "TOKEN_PATH": BAD_PATH,
    "USERID": BAD_DOTTED,
    "SILENT_RENEWAL": [None, 0, 1, "True"],
    "CODE_FROM": [None, True, "", "Server", "browser ", "both", ["server"], {"server"}],
    "RENEW_BEFORE": BAD_COUNT,
    "RENEW_UNUSED_FOR": BAD_COUNT,
    "TIMEOUT": BAD_TIMEOUTS,
    "API_TIMEOUT": BAD_TIMEOUTS,
    "EXTRA_AUTHORIZE_PARAMS": [*BAD_EXTRAS, *({key: "x"} for key in ("client_id", "redirect_uri", "state", "userid"))],
    "EXTRA_TOKEN_PARAMS": [
        *BAD_EXTRAS,
        *({key: "x"} for key in ("code", "client_id", "client_secret", "redirect_uri", "userid")),
    ],
}


def test_bad_values_cover_every_option() -> None:
    assert list(BAD_VALUES) == list(RULES)


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in BAD_VALUES.items() for value in values], ids=shown
)
def test_bad_value_is_a_problem(settings: "Settings", key: str, value: object) -> None:
    assert_refused(settings, {"default": {**REQUIRED, key: value}}, 5, f" has an invalid {key}", "Set it to ")


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("CLIENT_SECRET", None, "it is None"),
        ("CLIENT_SECRET", b"canary", "it is of type bytes, not str"),
        ("CLIENT_SECRET", "", "it is empty"),
        ("CLIENT_SECRET", "canary\n", "it ends with a line break, as the text in a file does"),
        ("CLIENT_SECRET", "canary\r\n", "it ends with a line break, as the text in a file does"),
        ("CLIENT_SECRET", "\n", "it is empty"),
        ("CLIENT_SECRET", " canary", "there is space around it"),
        ("CLIENT_SECRET", "canary \n", "there is space around it"),
        ("CLIENT_SECRET", "cana\nry", "it contains a line break or a control character"),
        ("BASE_URL", "", "it is empty"),
        ("BASE_URL", "https://canary.example\n", "it ends with a line break, as the text in a file does"),
        ("BASE_URL", '"https://canary.example"', "it is in quotation marks"),
        ("BASE_URL", "canary.example", "it does not begin with https://"),
        ("BASE_URL", "ftp://canary.example", "it does not begin with https://"),
        ("BASE_URL", "https://cänary.example", "it contains characters other than ASCII"),
        ("BASE_URL", "https://me:canary@airisk.example", "it contains a user name"),
        ("BASE_URL", "https://canary.example?x", "it contains a query"),
        ("BASE_URL", "https://canary.example#x", "it contains a fragment"),
        ("BASE_URL", "https://canary.example/a b", "it contains a space"),
        ("BASE_URL", "https:\\\\canary.example", "it does not begin with https://"),
        ("BASE_URL", "https://canary.example\\a", "it contains a backslash"),
        ("BASE_URL", "https://canary.example:port", "its host or its port is not valid"),
        ("BASE_URL", "https:///canary", "its host or its port is not valid"),
        ("BASE_URL", "http://canary.example", "it is plain http://, and DEBUG is off"),
        ("TOKEN_PATH", "canary", "it does not begin with /"),
        ("TOKEN_PATH", "/canary?x", "it is not only a path"),
        ("TOKEN_PATH", "/canary\n", "it ends with a line break, as the text in a file does"),
    ],
)
def test_message_says_what_is_wrong_with_a_value(settings: "Settings", key: str, value: object, fault: str) -> None:
    assert_refused(settings, {"default": {**REQUIRED, key: value}}, 5, f" has an invalid {key}: {fault}. Set it to ")


def test_other_values_are_only_told_what_is_right(settings: "Settings") -> None:
    assert_refused(settings, {"default": {**REQUIRED, "TIMEOUT": [5, 10]}}, 5, " has an invalid TIMEOUT. Set it to ")


@pytest.mark.parametrize("more", [{}, {"EXTRA_TOKEN_PARAMS": {}}, {"TYPO": 1}])
def test_options_in_place_of_aliases_are_a_problem(settings: "Settings", more: dict[str, Any]) -> None:
    assert_refused(settings, {**REQUIRED, **more}, 1, 'put {"default": {...}} around them')


def test_option_beside_a_deployment_spares_it(settings: "Settings") -> None:
    settings.AIRISK_OAUTH = {"default": REQUIRED, "BASE_URL": "https://canary.example"}
    assert deployment().alias == "default"
    assert [problem.message for problem in problems()] == ["AIRISK_OAUTH['BASE_URL'] must be a dictionary."]


@pytest.mark.parametrize("key", ["BASE_URL", "REDIRECT_URI"])
def test_plain_http_elsewhere_needs_debug(settings: "Settings", key: str) -> None:
    settings.DEBUG = True
    assert problems_with(settings, **{key: REMOTE_HTTP}) == []
    assert getattr(deployment(), key.lower()) == REMOTE_HTTP
    settings.DEBUG = False
    assert_refused(settings, {"default": {**REQUIRED, key: REMOTE_HTTP}}, 5, "https://")


# Who a user is on AIRisk


@pytest.mark.parametrize("value", ["user_42", "7C9E6679-7425-40DE-944B-E07FC1F90AE7", "ü ü", "x" * 255])
def test_userid_is_taken_as_it_is(settings: "Settings", value: str) -> None:
    assert is_userid(value)
    assert problems_with(settings, USERID="tests.test_conf.resolve") == []
    assert userid_of(deployment(), value) == value


@pytest.mark.parametrize("nobody", [None, ""])
def test_empty_userid_means_none(settings: "Settings", nobody: object) -> None:
    assert problems_with(settings, USERID="tests.test_conf.resolve") == []
    assert userid_of(deployment(), nobody) is None


@pytest.mark.parametrize("nonsense", [42, True, b"user_42", ["user_42"], UUID(int=1), " x", "x\n", "x\0", "x" * 256])
def test_resolver_must_return_a_valid_userid(settings: "Settings", nonsense: object) -> None:
    assert not is_userid(nonsense)
    assert problems_with(settings, USERID="tests.test_conf.resolve") == []
    with pytest.raises(ImproperlyConfigured, match=r"tests\.test_conf\.resolve"):
        userid_of(deployment(), nonsense)


def test_resolver_gets_the_user_and_the_alias(settings: "Settings") -> None:
    options = {**REQUIRED, "USERID": "tests.test_conf.resolve"}
    settings.AIRISK_OAUTH = {"default": options, "second": options}
    assert [userid_of(deployment(alias), str.upper) for alias in aliases()] == ["DEFAULT", "SECOND"]


def test_default_resolver_reads_identities(mia: User) -> None:
    tom = User.objects.create_user("tom")
    AIRiskIdentity.objects.create(user=tom, deployment="second", userid="user_7")
    assert [userid_of(deployment(alias), user) for user in (mia, tom) for alias in aliases()] == [
        "user_42",
        None,
        None,
        "user_7",
    ]
    assert from_identity.many([mia.pk, tom.pk], "default") == {mia.pk: "user_42"}
    assert from_identity(AnonymousUser(), "default") is None


# The package


def test_package_exports_its_clients_only() -> None:
    for name in airisk_oauth.__all__:
        module = async_client if name.startswith("Async") else sessions
        assert getattr(airisk_oauth, name) is getattr(module, name)
    with pytest.raises(AttributeError, match="'airisk_oauth' has no attribute 'AIRiskCookie'"):
        airisk_oauth.AIRiskCookie  # noqa: B018


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import airisk_oauth.oauth.token, airisk_oauth.oauth.authorization", ["django", "requests"]),
        ("import django; django.setup()", [f"airisk_oauth.{name}" for name in ("checks", "client", "oauth", "tokens")]),
        ("import django; django.setup(); import airisk_oauth.urls", ["requests", "httpx2", "cryptography", "tqdm"]),
    ],
)
def test_unused_libraries_are_not_imported(code: str, unwanted: list[str]) -> None:
    lines = f"import sys; {code}; print([name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
