# Run in a layer's root, last: nothing of the machine that built it stays, and
# nothing that only a package manager wants.

rm -f /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/99mmdebstrap /usr/sbin/policy-rc.d
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/cache/ldconfig/*
rm -rf /tmp/* /tmp/.[!.]* /root/.[!.]* /var/tmp/*
find /var/log -type f -delete

# The box gives a dyno its own.
for file in /etc/hostname /etc/hosts /etc/resolv.conf /etc/machine-id; do
	rm -f "$file"
	: >"$file"
done

# A dyno could not gain by them (no_new_privs, nosuid); they invite questions.
find / -xdev -type f -perm /6000 -exec chmod a-s {} +
