package authclient

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// HealthStatus is what auth-service says about itself.
type HealthStatus int

const (
	// HealthUnknown comes with an error: there was no response, or a strange one.
	HealthUnknown HealthStatus = iota
	// HealthServing is the only status that says all is well.
	HealthServing
	// HealthNotServing comes with an error.
	HealthNotServing
	// HealthUnimplemented is a server without the health service. It comes
	// without an error: only a probe call can tell whether it serves.
	HealthUnimplemented
)

func (s HealthStatus) String() string {
	return [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "UNIMPLEMENTED"}[s]
}

const healthMethod = "grpc.health.v1.Health/Check"

// Health checks the server as a whole by grpc.health.v1, retrying like
// [Client.Missing]. Any status but SERVING is an error, except for
// HealthUnimplemented.
func (c *Client) Health(ctx context.Context) (HealthStatus, error) {
	response := &healthv1.HealthCheckResponse{}
	err := c.retry(ctx, 0, func() *BatchError {
		return c.invoke(ctx, c.token.current(), healthMethod, &healthv1.HealthCheckRequest{}, response, 0)
	})
	if err != nil {
		if status.Code(err.Err) == codes.Unimplemented && !err.page {
			return HealthUnimplemented, nil
		}
		return HealthUnknown, fmt.Errorf("checking the health of auth-service at %s (%s): %w", c.endpoint.Address, err.Reason, err.Err)
	}
	switch response.GetStatus() {
	case healthv1.HealthCheckResponse_SERVING:
		return HealthServing, nil
	case healthv1.HealthCheckResponse_NOT_SERVING:
		return HealthNotServing, fmt.Errorf("auth-service at %s says that it is NOT_SERVING", c.endpoint.Address)
	default:
		return HealthUnknown, fmt.Errorf("auth-service at %s reports its health as %s", c.endpoint.Address, response.GetStatus())
	}
}
