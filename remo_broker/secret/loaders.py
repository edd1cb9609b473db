"""Environment variables that change which code a program runs.

A secret's default variable is its name in upper case, and names come from a socket: a secret named
`ld_preload` must not reach the loader. A registered manifest may name such a variable explicitly
with `env_var`.
"""

from __future__ import annotations

# Prefixes: the dynamic loader, interpreters, and tools with open-ended sets of variables.
PREFIXES = (
    *("LD_", "DYLD_", "GCONV_", "GLIBC_", "MALLOC_"),
    *("PYTHON", "PERL", "RUBY", "LUA_", "NODE_", "BUN_", "DENO_"),
    *("BASH_", "ZDOT", "GIT_", "SSH_ASKPASS", "SUDO_ASKPASS", "NPM_CONFIG_SCRIPT_SHELL", "NPM_CONFIG_NODE_OPTIONS"),
    *("DOTNET_", "COMPLUS_", "CORECLR_", "COR_", "JAVA_", "JDK_", "_JAVA_", "MAVEN_", "GRADLE_"),
    *("CARGO_BUILD_RUSTC", "RUSTC", "RUSTDOC", "RUSTFLAGS", "GTK_", "GIO_", "QT_", "OPENSSL_"),
)
NAMES = frozenset(
    {
        # where to find programs and their parts
        *("PATH", "HOME", "SHELL", "IFS", "CDPATH", "FPATH", "TMPDIR", "LOCPATH", "NLSPATH", "TZDIR"),
        # read by shells at startup
        *("ENV", "SHELLOPTS", "BASHOPTS", "PS1", "PS4", "PROMPT_COMMAND", "INPUTRC", "HISTFILE", "POSIXLY_CORRECT"),
        # programs that other programs start
        *("EDITOR", "VISUAL", "PAGER", "MANPAGER", "BROWSER", "LESS", "LESSOPEN", "LESSCLOSE", "MORE"),
        *("VIMINIT", "EXINIT", "EMACSLOADPATH", "TERMINFO", "TERMCAP"),
        # interpreters, compilers and build tools
        *("CLASSPATH", "PHPRC", "PHP_INI_SCAN_DIR", "R_PROFILE", "R_PROFILE_USER", "R_LIBS", "TCLLIBPATH"),
        *("GEM_PATH", "GEM_HOME", "BUNDLE_GEMFILE", "CC", "CXX", "CPP", "AR", "AS", "MAKEFLAGS", "MAKEFILES"),
        *("GOFLAGS", "GOROOT", "GOPATH", "CMAKE_PREFIX_PATH", "PKG_CONFIG_PATH", "ERL_LIBS", "ERL_FLAGS"),
        *("ELIXIR_ERL_OPTIONS", "KRB5_CONFIG", "GUILE_LOAD_PATH", "OCAMLRUNPARAM", "VIRTUAL_ENV"),
    }
)
# Credentials that happen to begin with one of the prefixes.
HARMLESS = frozenset({"NODE_AUTH_TOKEN", "GIT_TOKEN", "GIT_USERNAME", "GIT_PASSWORD"})


def changes_loading(variable: str) -> bool:
    """Whether a variable decides which code programs load or run."""
    name = variable.upper()
    return name not in HARMLESS and (name in NAMES or name.startswith(PREFIXES))
