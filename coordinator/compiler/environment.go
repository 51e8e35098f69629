package compiler

import "strings"

// passed are the variables of the coordinator's own environment that builds
// get: how to reach the mirrors and proxies of the place it runs in. A "*" at
// the end stands for any rest.
var passed = []string{
	"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy",
	"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY",
	"GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOVCS",
	"npm_config_registry", "npm_config_proxy", "npm_config_https_proxy", "npm_config_noproxy", "npm_config_strict_ssl",
	"NPM_CONFIG_REGISTRY", "NPM_CONFIG_PROXY", "NPM_CONFIG_HTTPS_PROXY", "NPM_CONFIG_NOPROXY", "NPM_CONFIG_STRICT_SSL",
	"YARN_REGISTRY", "YARN_NPM_REGISTRY_SERVER",
	"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES",
	"BUNDLE_MIRROR__*", "BUNDLE_TIMEOUT", "BUNDLE_RETRY",
}

// PassThrough picks from environ ("KEY=value") what builds need to reach the
// mirrors of the place the coordinator runs in, and what more names besides
// (a "*" at a name's end stands for any rest). The values may hold passwords.
func PassThrough(environ, more []string) map[string]string {
	env := map[string]string{}
	for _, entry := range environ {
		key, value, ok := strings.Cut(entry, "=")
		if ok && value != "" && (matches(key, passed) || matches(key, more)) {
			env[key] = value
		}
	}
	return env
}

func matches(key string, patterns []string) bool {
	for _, p := range patterns {
		if prefix, wild := strings.CutSuffix(p, "*"); key == p || wild && prefix != "" && strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}
