# Run in the root of the new run layer.

# The user every dyno runs as; /app is its slug.
echo 'dyno:x:1000:1000::/app:/bin/bash' >>/etc/passwd
echo 'dyno:x:1000:' >>/etc/group
if [ -f /etc/shadow ]; then echo 'dyno:*:19000:0:99999:7:::' >>/etc/shadow; fi
mkdir -p /app /tmp /proc /sys /dev /run /etc
chown 1000:1000 /app
chmod 1777 /tmp

if command -v locale-gen >/dev/null; then
	echo 'en_US.UTF-8 UTF-8' >/etc/locale.gen
	locale-gen
fi
