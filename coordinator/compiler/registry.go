package compiler

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// Registry answers what the heroku CLI asks a buildpack registry: which name
// stands for what. It knows the buildpacks that come with this binary, as
// heroku/NAME and NAME, and everyone may ask.
//
//	GET /buildpacks           all of them, or those that in[namespace][],
//	                          in[name][] and like[description] ask for
//	GET /buildpacks/{name}    one; blob_url is what an app is given
func Registry(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "The registry of buildpacks can only be read.", http.StatusMethodNotAllowed)
		return
	}
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/buildpacks"), "/")
	status, shown := http.StatusOK, any(nil)
	switch short := strings.TrimPrefix(name, "heroku/"); {
	case name == "":
		all, asked := []map[string]any{}, r.URL.Query()
		for _, known := range order {
			if found := entry(known); fits(found, asked) {
				all = append(all, found)
			}
		}
		shown = all
	case slices.Contains(order, short):
		shown = entry(short)
	default:
		status = http.StatusNotFound
		shown = map[string]string{"id": "not_found", "message": "There is no buildpack of that name here. Name one of ours (" + strings.Join(order, ", ") + "), or a git URL."}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(shown) // its reader may be gone
}

// fits says whether an entry is one of those a search asks for.
func fits(found map[string]any, asked url.Values) bool {
	for field, of := range map[string]string{"in[namespace][]": "namespace", "in[name][]": "name"} {
		if names := asked[field]; len(names) > 0 && !slices.Contains(names, found[of].(string)) {
			return false
		}
	}
	return strings.Contains(found["description"].(string), asked.Get("like[description]"))
}

func entry(name string) map[string]any {
	return map[string]any{
		"id": uuid.NewSHA1(uuid.NameSpaceOID, []byte("manifold/buildpack/"+name)).String(), "namespace": "heroku", "name": name,
		"full_name": "heroku/" + name, "blob_url": "heroku/" + name, "category": "languages", "description": "comes with Manifold",
		"support": map[string]string{"method": "", "address": ""}, "source": map[string]string{"type": "", "owner": "", "repo": ""}, "license": "", "logo": nil,
	}
}
