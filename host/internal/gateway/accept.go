package gateway

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// quality is a client's preference for a media type, from 0 (refused) to 1, and whether the client named
// exactly that type. Without a header, or with a malformed one, everything is accepted.
func quality(r *http.Request, mediaType string) (q float64, named bool) {
	values := r.Header["Accept"]
	if len(values) == 0 || len(values) == 1 && (values[0] == "*/*" || values[0] == mediaType) { // almost always
		return 1, len(values) == 1 && values[0] == mediaType
	}
	best := 0 // of the most specific range that matches
	said := false
	group, _, _ := strings.Cut(mediaType, "/")
	for _, h := range values {
		for part := range strings.SplitSeq(h, ",") {
			t, params, err := mime.ParseMediaType(part)
			if err != nil {
				continue
			}
			said = true
			specific := map[string]int{mediaType: 3, group + "/*": 2, "*/*": 1}[t]
			if specific <= best {
				continue
			}
			best, q = specific, 1
			if text, ok := params["q"]; ok {
				if q, err = strconv.ParseFloat(text, 64); err != nil || !(q >= 0 && q <= 1) {
					q = 1
				}
			}
		}
	}
	if !said {
		return 1, false
	}
	return q, best == 3
}

// prefers reports whether a client prefers a special form of an answer to JSON, which is the default.
func prefers(r *http.Request, special string) bool { return preferred(r, special) == special }

// preferred is the special form of an answer that a client prefers, the first of equal ones; JSON if it
// prefers JSON or accepts none of them.
func preferred(r *http.Request, special ...string) string {
	best, preference := api.ContentJSON, 0.0
	plain, _ := quality(r, api.ContentJSON)
	for _, form := range special {
		if q, named := quality(r, form); q > preference && (plain == 0 || named && q >= plain) {
			best, preference = form, q
		}
	}
	return best
}

// acceptable checks that the client accepts one of the forms that the answer may have.
func acceptable(r *http.Request, forms []string) error {
	for _, form := range forms {
		if q, _ := quality(r, form); q > 0 {
			return nil
		}
	}
	if len(forms) == 0 {
		return nil
	}
	return api.WithStatus(http.StatusNotAcceptable, service.Errorf(service.KindUnsupported, "the answer comes as %s, "+
		"none of which Accept names", strings.Join(forms, ", ")))
}
