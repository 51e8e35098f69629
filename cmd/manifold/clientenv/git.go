package clientenv

import (
	"os"
	"strconv"
)

// helper is what git asks for a password (gitcredentials(7)). The heroku CLI
// brings one of its own only since 11, which knows whom it is for; to those
// before it every git host is Heroku's.
const helper = `!f() { test "$1" = get && echo username=heroku && echo "password=${HEROKU_API_KEY:-$(heroku auth:token 2>/dev/null)}"; }; f`

// maxGitSettings bounds how many settings of the user's are looked through.
const maxGitSettings = 1000

// gitSettings are variables that add a setting to git's (git-config(1)) and
// leave the user's own there, or our own of the time before.
func gitSettings(tls string) []Var {
	key := "credential.https://" + tls + ".helper"
	count, err := strconv.Atoi(os.Getenv("GIT_CONFIG_COUNT"))
	if err != nil || count < 0 || count > maxGitSettings {
		count = 0 // git itself would refuse to run
	}
	at := 0
	for at < count && os.Getenv("GIT_CONFIG_KEY_"+strconv.Itoa(at)) != key {
		at++
	}
	n := strconv.Itoa(at)
	return []Var{
		{"GIT_CONFIG_COUNT", strconv.Itoa(max(count, at+1))},
		{"GIT_CONFIG_KEY_" + n, key},
		{"GIT_CONFIG_VALUE_" + n, helper},
	}
}
