#!/bin/sh
# Builds MicroPython's unix port with viper, twice: for this machine, and on x86-64 also for 32 bits, where integers and
# machine code behave as on a microcontroller. The tests of the machine-code kernels run on them; nothing is installed.
# The source is Debian's package, from the mirror that apt is set up with. A second run does nothing.
set -eu

suite=trixie
result="${XDG_CACHE_HOME:-$HOME/.cache}/puffer-edge/micropython"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

skip() {
    echo "micropython  unix port not built: $1"
    exit 0
}

if [ -x "$result/micropython-64" ] && { [ "$(uname -m)" != x86_64 ] || [ -x "$result/micropython-32" ]; }; then
    echo "micropython  unix port already built: $result"
    exit 0
fi
for program in apt-get gcc make dpkg-deb tar xz python3; do
    command -v $program >/dev/null || skip "no $program here"
done
[ -r $keyring ] || skip "needs Debian's keyring ($keyring)"
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
    sed -n 's/^URIs: *\([^ ]*debian\/*\)\( .*\)*$/\1/p; s/^deb  *\(\[[^]]*\]  *\)*\([^ ]*debian\/*\) .*/\2/p' | head -n 1)
[ -n "$mirror" ] || skip "apt knows no Debian mirror"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/source" "$work/port" "$work/libc" "$result"
chmod 755 "$work"
cd "$work/source"

echo "micropython  unix port: fetching the source"
echo "deb-src [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$work/lists" update ||
    skip "the source list of $suite could not be fetched"
apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$work/lists" \
    -o APT::Sandbox::User=root source --download-only micropython
tar -xf micropython_*.orig.tar.xz -C "$work/port" --strip-components=1

# build NAME CC: without what needs libraries or submodules
build() {
    echo "micropython  unix port: building $1"
    make -s -C "$work/port/ports/unix" -j2 CC="$2" BUILD="build-$1" VARIANT=standard FROZEN_MANIFEST= STRIP=: MICROPY_PY_BTREE=0 \
        MICROPY_PY_FFI=0 MICROPY_PY_SSL=0 MICROPY_SSL_MBEDTLS=0 MICROPY_PY_THREAD=0 MICROPY_PY_BLUETOOTH=0 >"$work/$1.log" 2>&1 ||
        { tail -n 20 "$work/$1.log"; exit 1; }
    cp "$work/port/ports/unix/build-$1/micropython" "$result/micropython-$1.new"
    mv "$result/micropython-$1.new" "$result/micropython-$1"
}

build 64 gcc
if [ "$(uname -m)" = x86_64 ]; then
    version=$(gcc -dumpversion | cut -d. -f1)
    (cd "$work/libc" && apt-get -qq -o APT::Sandbox::User=root download libc6-dev-i386 "lib32gcc-$version-dev")
    for package in "$work"/libc/*.deb; do dpkg-deb -x "$package" "$work/libc"; done
    gcc_32="usr/lib/gcc/x86_64-linux-gnu/$version/32"
    flags="-m32 -static -isystem $work/libc/usr/include -isystem $work/libc/usr/include/x86_64-linux-gnu"
    flags="$flags -isystem /usr/include/x86_64-linux-gnu -B$work/libc/usr/lib32/ -L$work/libc/usr/lib32 -B$work/libc/$gcc_32/ -L$work/libc/$gcc_32"
    printf '#!/bin/sh\nexec gcc %s "$@"\n' "$flags" >"$work/gcc-32"
    chmod +x "$work/gcc-32"
    build 32 "$work/gcc-32"
fi
echo "micropython  unix port built: $result"
