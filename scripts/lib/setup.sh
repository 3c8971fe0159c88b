# shellcheck shell=bash
# What a bare Debian lacks: packages, Rust, the SDKs. Sourced by the commands beside this directory, with `root` set to the
# top of the repository. Each function looks first and changes nothing when all is there, so each can run again and again.

: "${root:?the top of the repository}"

# Ends with one line that says what to do.
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

say() { printf '%s\n' "$*" >&2; }

has() { command -v "$1" >/dev/null 2>&1; }

# need_packages COMMAND=PACKAGE[,PACKAGE…]…: installs the packages of the commands that are missing, by one apt-get.
need_packages() {
  local wanted command missing=() packages=()
  for wanted; do
    command=${wanted%%=*}
    # A Python without ensurepip has `venv` and cannot make one: on Debian it comes with python3-venv.
    if [ "$command" = python3-venv ]; then
      python3 -c 'import ensurepip, venv' 2>/dev/null && continue
    elif has "$command"; then
      continue
    fi
    missing+=("$command")
    IFS=, read -ra more <<<"${wanted#*=}"
    packages+=("${more[@]}")
  done
  [ ${#packages[@]} -eq 0 ] && return
  has apt-get || die "needs ${missing[*]}, and apt-get is not here to install them"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    has sudo || die "needs ${missing[*]}: as root, apt-get install ${packages[*]}"
    as_root=(sudo)
  fi
  say "installing ${packages[*]}"
  "${as_root[@]}" apt-get update -qq || die "apt-get update failed"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Use-Pty=0 "${packages[@]}" </dev/null >&2 || die "apt-get install ${packages[*]} failed"
}

# The least Rust that builds this workspace: it has one home, the root manifest.
rust_wanted() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml"; }

# Whether the cargo in PATH is recent enough, and runs at all (rustup's stand-in may have no toolchain behind it).
rust_is_recent() {
  local have
  have=$(rustc --version 2>/dev/null | cut -d ' ' -f 2) && [ -n "$have" ] && cargo --version >/dev/null 2>&1 &&
    printf '%s\n%s\n' "$(rust_wanted)" "$have" | sort --version-sort --check=quiet
}

# A cargo that is recent enough: the one in PATH, or rustup's.
need_rust() {
  PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  rust_is_recent && return
  if RUSTUP_TOOLCHAIN=stable rust_is_recent; then
    export RUSTUP_TOOLCHAIN=stable
    return
  fi
  local how
  how="needs Rust $(rust_wanted) or newer and cannot install it: install it as https://rustup.rs tells, then run this again"
  if ! has rustup; then
    need_packages curl=curl,ca-certificates
    say "installing Rust by rustup"
    curl --proto '=https' --tlsv1.2 --connect-timeout 20 --max-time 120 -fsS --create-dirs \
      -o "$root/target/rustup-init.sh" https://sh.rustup.rs 2>/dev/null || die "$how"
    sh "$root/target/rustup-init.sh" -y --quiet --no-modify-path --profile minimal </dev/null >&2 || die "$how"
  else
    rustup toolchain install stable --profile minimal >&2 || die "$how"
    export RUSTUP_TOOLCHAIN=stable
  fi
  # The distribution's own cargo, too old, may stand before it.
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  hash -r
  rust_is_recent || die "$how"
}

# need_rust_component NAME CARGO_COMMAND: rustfmt and clippy are parts of their own.
need_rust_component() {
  cargo "$2" --version >/dev/null 2>&1 && return
  if has rustup; then rustup component add "$1" >&2 || true; fi
  cargo "$2" --version >/dev/null 2>&1 || die "needs cargo $2: rustup component add $1, or this Rust's package of it"
}

# What compiles the gateway: Rust, and a C compiler for its allocator.
need_compiler() {
  need_packages cc=gcc,libc6-dev
  need_rust
}

# cargo-deny of one version, in target/tools; sets `cargo_deny`.
need_cargo_deny() {
  need_compiler
  local wanted=0.20.2 tools=${CARGO_TARGET_DIR:-$root/target}/tools
  cargo_deny=$tools/bin/cargo-deny
  [ "$("$cargo_deny" --version 2>/dev/null)" = "cargo-deny $wanted" ] && return
  say "installing cargo-deny $wanted"
  # Without optimisation it is built within a minute, and it runs for a second or two.
  cargo install --quiet --locked --debug --no-default-features --root "$tools" --target-dir "$tools/build" \
    --version "$wanted" cargo-deny || die "cargo-deny $wanted cannot be installed"
  rm -rf "$tools/build"
}

# Whether there is a nightly Rust beside the one that builds.
has_nightly() { cargo +nightly --version >/dev/null 2>&1; }

# `cargo fuzz`, built below target/.
need_cargo_fuzz() {
  PATH=$root/target/tools/bin:$PATH
  cargo fuzz --version >/dev/null 2>&1 && return
  say "installing cargo-fuzz"
  cargo install cargo-fuzz --locked --quiet --root "$root/target/tools" </dev/null >&2 ||
    die "needs cargo fuzz: cargo install cargo-fuzz"
}

# The npm packages of the tests, and with them the SDK that the demo page runs.
need_node_packages() {
  need_packages node=nodejs npm=npm
  local tests=$root/gateway/tests
  # npm keeps a copy of the lock file it has installed from; ours says when that was.
  if ! cmp -s "$tests/package-lock.json" "$tests/node_modules/.ringway-lock.json"; then
    say "installing npm packages"
    (cd "$tests" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null >&2) ||
      die "npm ci failed in gateway/tests"
    cp "$tests/package-lock.json" "$tests/node_modules/.ringway-lock.json"
  fi
}

# The Python packages of the tests, in .venv.
need_python_packages() {
  need_packages python3=python3 python3-venv=python3-venv
  local wanted=$root/gateway/tests/requirements.txt
  if ! cmp -s "$wanted" "$root/.venv/.ringway-requirements.txt"; then
    say "installing Python packages"
    python3 -m venv --clear "$root/.venv" || die "python3 -m venv .venv failed"
    "$root/.venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" </dev/null >&2 ||
      die "the Python packages of gateway/tests/requirements.txt cannot be installed"
    cp "$wanted" "$root/.venv/.ringway-requirements.txt"
  fi
}

# Debian's NATS server, which is no command of everybody's.
need_nats_server() {
  PATH=$PATH:/usr/sbin
  need_packages nats-server=nats-server
}

# The demo page's SDK: third-party, so it is fetched and never committed.
need_demo_sdk() {
  need_node_packages
  local vendor=$root/gateway/demo/vendor packed=$root/gateway/tests/node_modules/centrifuge
  cmp -s "$packed/dist/centrifuge.js" "$vendor/centrifuge.js" && return
  mkdir -p "$vendor"
  cp "$packed/LICENSE" "$vendor/centrifuge.LICENSE"
  cp "$packed/dist/centrifuge.js" "$vendor/centrifuge.js"
}
