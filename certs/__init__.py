"""Keys, certificates and the two enrolment protocols, SCEP and ACME: each as message, client and server."""
