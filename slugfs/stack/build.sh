# Run in the root of the build layer, over the run layer.

# Backports keep each Go in a directory of its own.
for go in /usr/lib/go-*/bin; do
	[ -x "$go/go" ] || continue
	ln -sf "$go/go" "$go/gofmt" /usr/local/bin/
done
