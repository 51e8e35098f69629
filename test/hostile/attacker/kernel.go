package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// refusals are the answers to an open that somebody else's file may give.
var refusals = []string{"EACCES", "EPERM", "EROFS", "ENOENT", "ENXIO", "ENODEV"}

// opens tries to open files for writing, and writes nothing.
func opens(name string, flags int, paths ...string) attempt {
	return all(name, refusals, func(yield func(what, answer string)) {
		for _, path := range paths {
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
			if err == nil {
				unix.Close(fd)
			}
			yield(path, answer(err))
		}
	})
}

// kernelFiles are the files by which the kernel and its devices are steered.
var kernelFiles = []attempt{
	opens("core_pattern", unix.O_WRONLY, "/proc/sys/kernel/core_pattern"),
	opens("sysrq-trigger", unix.O_WRONLY, "/proc/sysrq-trigger"),
	opens("/proc/sys", unix.O_WRONLY, "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname", "/proc/sys/kernel/hotplug", "/proc/sys/vm/drop_caches",
		"/proc/sys/fs/binfmt_misc/register", "/proc/sys/kernel/panic", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/yama/ptrace_scope",
		"/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/randomize_va_space"),
	opens("/sys", unix.O_WRONLY, "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/module/kernel/parameters/panic",
		"/sys/kernel/profiling", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cgroup.procs", "/sys/class/net/eth0/mtu", "/sys/kernel/security/lsm"),
	opens("kernel memory", unix.O_RDONLY, "/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/proc/kmsg", "/dev/core"),
	{"/proc/kcore", func() string { return empty("/proc/kcore") }},
	{"/proc/keys", func() string { return empty("/proc/keys") }},
	{"kernel addresses (kallsyms)", func() string {
		data, err := os.ReadFile("/proc/kallsyms")
		if err != nil {
			return answer(err)
		}
		if strings.Trim(strings.Fields(string(data) + " 0")[0], "0") == "" {
			return "zeros"
		}
		return "SUCCEEDED"
	}},
	opens("disks and devices", unix.O_RDONLY, "/dev/sda", "/dev/vda", "/dev/loop0", "/dev/loop-control", "/dev/dm-0", "/dev/kvm", "/dev/fuse", "/dev/net/tun",
		"/dev/mapper/control", "/dev/vhost-net", "/dev/userfaultfd", "/dev/snapshot", "/dev/console", "/dev/tty1", "/dev/hwrng", "/dev/rtc0"),
	{"mknod of a disk", func() string { return mknod(unix.S_IFBLK, unix.Mkdev(8, 0)) }},
	{"mknod of a loop device", func() string { return mknod(unix.S_IFBLK, unix.Mkdev(7, 0)) }},
	{"mknod of kernel memory", func() string { return mknod(unix.S_IFCHR, unix.Mkdev(1, 1)) }},
	{"less likely to be killed (oom_score_adj)", func() string { return answer(os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)) }},
	{"names of host and neighbours in /sys", leaks},
	{"setuid program", func() string {
		path := "/tmp/setuid"
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			return answer(err)
		}
		if err := os.Chmod(path, 0o4755); err != nil {
			return answer(err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs("/tmp", &st); err != nil {
			return answer(err)
		}
		if st.Flags&unix.ST_NOSUID != 0 {
			return "the mount is nosuid"
		}
		return "SUCCEEDED"
	}},
}

func empty(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return answer(err)
	}
	defer f.Close()
	if n, err := f.Read(make([]byte, 64)); n > 0 {
		return "SUCCEEDED"
	} else if err != nil && err.Error() != "EOF" {
		return answer(err)
	}
	return "empty"
}

func mknod(kind uint32, dev uint64) string {
	err := unix.Mknod("/tmp/node", kind|0o600, int(dev))
	_ = os.Remove("/tmp/node")
	return answer(err)
}

// leaks looks for what tells of the host's paths or of other dynos: the
// platform keeps writable layers as files of loop devices.
func leaks() string {
	found, looked := "", 0
	for _, root := range []string{"/sys/block", "/sys/class/block", "/sys/dev/block", "/sys/devices/virtual/block", "/sys/fs", "/sys/kernel/slab", "/sys/kernel/debug", "/sys/kernel/tracing"} {
		// Links are followed once: sysfs is full of circles.
		dirs, _ := filepath.Glob(root + "/*")
		for _, dir := range append(dirs, root) {
			entries, _ := filepath.Glob(dir + "/*")
			looked += len(entries)
			for _, file := range append(entries, dir+"/loop/backing_file") {
				if data, err := os.ReadFile(file); err == nil && strings.Contains(string(data), "/runs/") {
					found = file
				}
			}
		}
	}
	if found != "" {
		return "SUCCEEDED: " + found
	}
	return "nothing"
}

// processes are attacks on other processes.
var processes = []attempt{
	{"PID 1: SIGKILL", func() string { return answer(unix.Kill(1, unix.SIGKILL)) }},
	{"PID 1: SIGSTOP", func() string { return answer(unix.Kill(1, unix.SIGSTOP)) }},
	{"PID 1: SIGTERM", func() string { return answer(unix.Kill(1, unix.SIGTERM)) }},
	{"PID 1: SIGKILL by pidfd", func() string {
		fd, err := unix.PidfdOpen(1, 0)
		if err != nil {
			return answer(err)
		}
		defer unix.Close(fd)
		return answer(unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
	}},
	call("PID 1: priority", unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 1, 19),
	{"PID 1: limits", func() string { return answer(unix.Prlimit(1, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: 1}, nil)) }},
	opens("PID 1: memory", unix.O_RDONLY, "/proc/1/mem", "/proc/1/maps", "/proc/1/environ", "/proc/1/stack", "/proc/1/auxv"),
	opens("PID 1: its program (/proc/1/exe)", unix.O_WRONLY, "/proc/1/exe"),
	opens("PID 1: its descriptors", unix.O_RDONLY, "/proc/1/fd/0", "/proc/1/fd/3", "/proc/1/fd/4", "/proc/1/fd/5", "/proc/1/fd/6", "/proc/1/fd/7"),
	{"the launcher's program (/proc/self/exe)", func() string {
		fd, err := unix.Open("/proc/self/exe", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return answer(err)
	}},
	all("signal 0 to the host's processes", []string{"ESRCH"}, func(yield func(what, answer string)) {
		for _, pid := range hostPIDs() {
			if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err != nil { // else it is one of ours
				yield(strconv.Itoa(pid), answer(unix.Kill(pid, 0)))
			}
		}
	}),
	{"a process of somebody else in /proc", func() string {
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range dirs {
			line, err := os.ReadFile(dir + "/cmdline")
			if err == nil && (strings.Contains(string(line), "manifold-agent") || strings.Contains(string(line), "neighbour")) {
				return "SUCCEEDED: " + string(line)
			}
		}
		return "only its own"
	}},
	{"a descriptor that leaked", leakedDescriptors},
}

func hostPIDs() (pids []int) {
	for _, s := range strings.Split(os.Getenv("HOST_PIDS"), ",") {
		if pid, err := strconv.Atoi(s); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// leakedDescriptors walks /proc/self/fd for what this program did not open,
// and from each of them outwards.
func leakedDescriptors() string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return answer(err)
	}
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue // the one that read the directory
		}
		known := strings.HasPrefix(target, "pipe:") || strings.HasPrefix(target, "anon_inode:") ||
			target == "/dev/null" || strings.HasPrefix(target, "/proc/") && strings.HasSuffix(target, "/fd")
		if !known {
			return "SUCCEEDED: " + target
		}
		if out, err := unix.Openat(fd, "../../../..", unix.O_RDONLY, 0); err == nil && !strings.HasPrefix(target, "/proc/") {
			unix.Close(out)
			return "SUCCEEDED: a way out from " + target
		}
	}
	return "only its own"
}

// files are tricks on the paths that the platform itself opens.
var files = []attempt{
	{"put another /app in place", func() string { return answer(os.Rename("/app", "/tmp/app")) }},
	{"a link in place of /etc/resolv.conf", func() string { return answer(os.Symlink("/proc/1/environ", "/etc/resolv.conf.new")) }},
	{"write /etc/passwd", func() string {
		f, err := os.OpenFile("/etc/passwd", os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		return answer(err)
	}},
	{"write the stack", func() string { return answer(os.WriteFile("/usr/bin/hostile", nil, 0o755)) }},
	{"a file in /", func() string { return answer(os.WriteFile("/exit.json", nil, 0o644)) }},
	{"the exit record", func() string {
		for _, path := range []string{"/exit.json", "/pid1/exit.json", "/proc/1/cwd/exit.json", "/proc/1/root/exit.json"} {
			if _, err := os.Stat(path); err == nil {
				return "SUCCEEDED: " + path
			}
		}
		return "not in sight"
	}},
	{"the log segments", func() string {
		// What the app has of its log is a pipe: nothing to seek, cut or rename.
		if _, err := unix.Seek(1, 0, unix.SEEK_SET); err != nil {
			return answer(err)
		}
		return "SUCCEEDED"
	}},
	{"overlay's own attributes", func() string {
		path := "/tmp/xattr"
		if err := os.MkdirAll(path, 0o755); err != nil {
			return answer(err)
		}
		for _, name := range []string{"user.overlay.opaque", "user.overlay.redirect", "trusted.overlay.redirect"} {
			err := unix.Setxattr(path, name, []byte("/../../etc"), 0)
			if err == nil {
				// It must be a plain attribute to whoever looks, not overlay's.
				continue
			}
			if err != syscall.EPERM && err != syscall.EOPNOTSUPP {
				return name + " " + answer(err)
			}
		}
		if _, err := os.ReadDir(path); err != nil {
			return "SUCCEEDED in breaking a directory: " + err.Error()
		}
		return "refused or without effect"
	}},
	{"a name of a thousand directories", func() string {
		dir := "/tmp/deep"
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return answer(err)
		}
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		for range 1000 {
			if err != nil {
				return answer(err)
			}
			_ = unix.Mkdirat(fd, strings.Repeat("d", 200), 0o755)
			var next int
			next, err = unix.Openat(fd, strings.Repeat("d", 200), unix.O_RDONLY|unix.O_DIRECTORY, 0)
			unix.Close(fd)
			fd = next
		}
		unix.Close(fd)
		return "made; it goes with the layer"
	}},
}
