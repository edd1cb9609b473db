"""Environment variables that change which code a program runs.

A secret's default variable is its name in upper case, and names come from a socket: a secret named
`ld_preload` must not reach the loader. A registered manifest may name such a variable explicitly
with `env_var`.
"""

from __future__ import annotations

# Prefixes: the dynamic loader, interpreters, and tools with open-ended sets of variables.
PREFIXES = (
    *("LD_", "DYLD_", "GCONV_", "GLIBC_", "MALLOC_"),
    *("PYTHON", "PERL", "RUBY", "LUA_", "NODE_", "BUN_", "DENO_", "R_PROFILE", "R_ENVIRON", "R_LIBS", "R_HOME"),
    *("BASH_", "ZDOT", "GIT_", "XDG_", "LESS", "FZF_", "TF_CLI_", "CMAKE_", "CCACHE_"),
    *("DOTNET_", "COMPLUS_", "CORECLR_", "COR_", "JAVA_", "JDK_", "_JAVA_", "MAVEN_", "GRADLE_"),
    *("CARGO_BUILD_", "CARGO_TARGET_", "CARGO_HOME", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_"),
    *("CARGO_ALIAS_", "CARGO_CREDENTIAL_ALIAS_", "IPYTHON", "CONTAINERS_"),
    *("GTK_", "GIO_", "QT_", "OPENSSL_", "DBUS_", "ERL_", "AWK", "GUILE_", "GROFF_", "MAGICK_", "TEXMF"),
)
# Suffixes: a program, options of one, or where to find its parts, for many tools each.
SUFFIXES = (
    *("EDITOR", "PAGER", "BROWSER", "_ASKPASS", "_RSH", "_SHELL", "_COMMAND", "PASSCOMMAND", "_PRELOAD"),
    *("_WRAPPER", "_RUNNER", "_LINKER", "_LAUNCHER", "_EXECUTABLE", "_OPTS", "_JVM_ARGS", "_NODE_OPTIONS"),
    *("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "_PLUGINS", "_PLUGIN_PATH", "_LIBRARY_PATH", "_MODULE_PATH"),
    *("_INCLUDE_PATH", "_LOAD_PATH", "_DEPOT_PATH", "_DRIVER_PATH", "_DRIVERS_PATH", "_BACKENDS_PATH", "_LAYER_PATH"),
    *("_CREDENTIAL_PROVIDER", "_CREDENTIAL_PROVIDERS", "_SETTINGS_MODULE", "_CONFIG_MODULE", "ENV_ROOT"),
    *("_PACKAGE_PATH", "_EXECUTABLE_PATH", "_PLUGIN_DIR", "_PLUGIN_SYSTEM_PATH", "_PLUGIN_SCANNER", "_HOME"),
    *("_PYTHON", "_HELPER", "_EXTERNAL_DIFF"),
)
NAMES = frozenset(
    {
        # where to find programs and their parts
        *("PATH", "HOME", "SHELL", "IFS", "CDPATH", "FPATH", "TMPDIR", "LOCPATH", "NLSPATH", "TZDIR"),
        # read by shells at startup
        *("ENV", "SHELLOPTS", "BASHOPTS", "PS0", "PS1", "PS2", "PS4", "MAILPATH", "INPUTRC", "HISTFILE"),
        *("PROMPT", "PROMPT2", "PROMPT3", "PROMPT4", "SPROMPT", "RPROMPT", "RPROMPT2", "RPS1", "RPS2", "PS3"),
        *("NULLCMD", "READNULLCMD", "POSIXLY_CORRECT"),
        # programs that other programs start, and their settings
        *("VISUAL", "FCEDIT", "MORE", "VIM", "VIMRUNTIME", "VIMINIT", "GVIMINIT", "MYVIMRC", "EXINIT", "EMACSLOADPATH"),
        *("EMACSPATH", "EMACSDATA", "TERMINFO", "CVS_SERVER", "CHROME_BIN", "CHROME_PATH", "GS_LIB", "GS_OPTIONS"),
        *("SASL_PATH", "SASL_CONF_PATH", "VK_ICD_FILENAMES", "VK_DRIVER_FILES", "VK_ADD_DRIVER_FILES", "TEXINPUTS"),
        *("TERMCAP", "SVN_SSH", "HGRCPATH", "RSYNC_CONNECT_PROG", "TAR_OPTIONS", "ZIPOPT", "SCREENRC"),
        *("SSH_SK_PROVIDER", "HGMERGE", "SVN_MERGE", "P4DIFF", "P4MERGE", "MAKESHELL"),
        *("MANROFFOPT", "MAILCAPS", "WGETRC", "GNUPGHOME", "PASSWORD_STORE_EXTENSIONS_DIR"),
        # paths of configurations that name programs
        *("KUBECONFIG", "DOCKER_CONFIG", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "CLOUDSDK_CONFIG"),
        *("ANSIBLE_CONFIG", "ANSIBLE_LIBRARY", "ANSIBLE_VAULT_PASSWORD_FILE", "PGSERVICEFILE"),
        *("ANSIBLE_INVENTORY", "ANSIBLE_ROLES_PATH", "ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_SSH_ARGS"),
        *("ANSIBLE_SSH_COMMON_ARGS", "ANSIBLE_SSH_EXTRA_ARGS", "TF_DATA_DIR", "TF_REATTACH_PROVIDERS"),
        *("APT_CONFIG", "VAULT_CONFIG_PATH", "AZURE_CONFIG_DIR", "AZURE_EXTENSION_DIR", "IRBRC", "PRYRC"),
        *("TERRAFORM_CONFIG", "PSQLRC", "MANOPT", "SYSTEMD_SSH"),
        *("PGSYSCONFDIR", "PIP_CONFIG_FILE", "UV_CONFIG_FILE", "NPM_CONFIG_USERCONFIG", "NPM_CONFIG_GLOBALCONFIG"),
        *("NPM_CONFIG_PREFIX", "NPM_CONFIG_GIT", "NPM_CONFIG_NODE_GYP", "KRB5_CONFIG"),
        *("NPM_CONFIG_INIT_MODULE", "RIPGREP_CONFIG_PATH", "STARSHIP_CONFIG", "CONFIG_SITE"),
        # interpreters, compilers and build tools
        *("CLASSPATH", "PHPRC", "PHP_INI_SCAN_DIR", "TCLLIBPATH", "TCL_LIBRARY", "TK_LIBRARY", "ANT_ARGS"),
        *("NIX_PATH", "NIX_CONFIG", "NIX_CONF_DIR", "NIX_USER_CONF_FILES", "GHCRTS", "GHC_ENVIRONMENT", "PLTADDONDIR"),
        *("PLTUSERHOME", "PLTCOLLECTS", "MIX_EXS", "MIX_ARCHIVES", "REBAR_GLOBAL_CONFIG_DIR", "GST_REGISTRY"),
        *("ODBCINI", "ODBCSYSINI", "ODBCINSTINI"),
        *("GEM_PATH", "BUNDLE_GEMFILE", "BUNDLE_PATH", "BUNDLE_APP_CONFIG"),
        *("CC", "CXX", "CPP", "AR", "AS", "LD", "NM", "RM", "FC", "F77", "LEX", "YACC", "LDLIBS", "LOADLIBES"),
        *("MAKEFLAGS", "GNUMAKEFLAGS", "MAKEFILES", "PYTEST_ADDOPTS", "PYLINTRC", "MPLCONFIGDIR", "FLASK_APP"),
        *("GUNICORN_CMD_ARGS", "COVERAGE_PROCESS_START", "COVERAGE_RCFILE", "VAGRANT_VAGRANTFILE", "NVM_DIR"),
        *("ASDF_DIR", "ASDF_DATA_DIR", "MISE_DATA_DIR", "CONDA_EXE", "CONDA_PREFIX"),
        *("JUPYTER_PATH", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_CONFIG_PATH"),
        *("GCC_EXEC_PREFIX", "COMPILER_PATH", "LIBRARY_PATH", "CPATH", "GOFLAGS", "GOROOT", "GOPATH", "GOENV"),
        *("GOAUTH", "GOCACHEPROG", "TS_NODE_COMPILER", "TS_NODE_PROJECT"),
        *("GOTOOLCHAIN", "PKG_CONFIG_PATH", "ELIXIR_ERL_OPTIONS", "OCAMLRUNPARAM"),
        *("OCAMLPATH", "VIRTUAL_ENV", "ELECTRON_RUN_AS_NODE", "YARN_RC_FILENAME", "YARN_YARN_PATH"),
    }
)
# Credentials that happen to begin with one of the prefixes.
HARMLESS = frozenset({"NODE_AUTH_TOKEN", "GIT_TOKEN", "GIT_USERNAME", "GIT_PASSWORD"})


def changes_loading(variable: str) -> bool:
    """Whether a variable decides which code programs load or run."""
    name = variable.upper()
    return name not in HARMLESS and (name in NAMES or name.startswith(PREFIXES) or name.endswith(SUFFIXES))
