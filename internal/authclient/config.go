package authclient

import (
	"fmt"
	"regexp"
	"strings"
)

// DefaultMethod is the call as auth-service v1 names it.
const DefaultMethod = "nova.auth_service.v1.AuthService/GetUsersByIds"

// maxResponse bounds one response in bytes. 100 users of a few hundred bytes each
// are 30 KiB; a response of 4 MiB is a fault, not a batch.
const maxResponse = 4 << 20

var methodForm = regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*/[A-Za-z_]\w*$`)

// fullMethod is a method with its default, without a leading slash.
func fullMethod(method string) (string, error) {
	if method == "" {
		return DefaultMethod, nil
	}
	method = strings.TrimPrefix(method, "/")
	if !methodForm.MatchString(method) {
		return "", fmt.Errorf("AUTH_SERVICE_METHOD %q is not a gRPC method; write it as %s", method, DefaultMethod)
	}
	return method, nil
}
