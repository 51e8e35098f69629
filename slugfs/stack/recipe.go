package stack

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
)

// recipe is all a stack is made from. Raise Version when an app could notice.
type recipe struct {
	Name    string
	Version string
	Suite   string   // Debian's code name
	Variant string   // mmdebstrap's
	Run     []string // packages of the run layer
	Build   []string // packages of the build layer; none: the run layer serves
	// Backports says that packages come from <suite>-backports, too.
	Backports bool
}

// What is done to a layer once its packages are in, inside it and as root.
//
//go:embed run.sh
var runScript string

//go:embed build.sh
var buildScript string

//go:embed clean.sh
var cleanScript string

var recipes = []recipe{
	{
		Name: "cedar", Version: "1", Suite: "bookworm", Variant: "minbase", Backports: true,
		Run: []string{
			"bash", "bzip2", "ca-certificates", "coreutils", "curl", "default-jre-headless", "dnsutils", "ed",
			"file", "git", "gnupg", "iproute2", "iputils-ping", "jq", "less", "locales", "lsof", "nano",
			"netcat-openbsd", "nodejs", "openssh-client", "openssl", "patch", "postgresql-client", "procps", "psmisc",
			"python-is-python3", "python3", "redis-tools", "rsync", "ruby", "socat", "sqlite3", "strace",
			"tzdata", "unzip", "vim-tiny", "wget", "xz-utils", "zip", "zstd",
			// Libraries that compiled parts of apps are linked with.
			"libcurl4", "libffi8", "libgmp10", "libmariadb3", "libpq5", "libreadline8", "libsqlite3-0", "libssl3",
			"libxml2", "libxslt1.1", "libyaml-0-2", "zlib1g",
		},
		Build: []string{
			"autoconf", "automake", "bison", "build-essential", "bundler", "golang-1.23-go", "libtool", "npm", "pkg-config",
			"python3-dev", "python3-pip", "python3-venv", "ruby-dev",
			"libcurl4-openssl-dev", "libffi-dev", "libgmp-dev", "libmariadb-dev", "libpq-dev", "libreadline-dev",
			"libsqlite3-dev", "libssl-dev", "libxml2-dev", "libxslt1-dev", "libyaml-dev", "zlib1g-dev",
		},
	},
	{
		// For tests of the kernel's side of things: what a shell needs.
		Name: "tiny", Version: "1", Suite: "bookworm", Variant: "essential",
		Run: []string{"busybox", "iproute2", "procps"},
	},
}

// Names lists the stacks that can be built.
func Names() []string {
	var names []string
	for _, r := range recipes {
		names = append(names, r.Name)
	}
	sort.Strings(names)
	return names
}

func find(name string) (recipe, error) {
	for _, r := range recipes {
		if r.Name == name {
			return r, nil
		}
	}
	return recipe{}, fmt.Errorf("there is no stack %.40q; the stacks are %s", name, strings.Join(Names(), ", "))
}

// digest names everything that decides what is in the stack.
func (r recipe) digest() string {
	text, err := json.Marshal([]any{r, runScript, buildScript, cleanScript, dpkgOptions})
	if err != nil {
		panic(err) // strings only
	}
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}
