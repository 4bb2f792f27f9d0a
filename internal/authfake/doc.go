// Package authfake is an auth-service for tests, the demo and the benchmark: a
// real gRPC server on a real socket, with the two names of the real service,
// grpc.health.v1 and reflection, so that the runbook's grpcurl calls work on
// it. It responds honestly from a set of living users until it is told to lie,
// see [Faults].
package authfake
